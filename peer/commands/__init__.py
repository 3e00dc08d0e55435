"""What each command of ``kin`` does; :mod:`peer.cli` reads the arguments and imports a module here when it is needed."""
