"""What histories found, told as short stories: each is one that the product once got wrong.

A module is one story: ``story(world)`` runs on a prepared world of three devices, and its docstring says what went wrong.
"""
