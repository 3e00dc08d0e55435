"""What every page holds of its own: how it looks, in light, in dark and on paper, and what it does when asked."""

from __future__ import annotations

from typing import Final

STYLE: Final = """
:root{color-scheme:light dark;--paper:#fff;--ink:#1c2330;--soft:#5b6678;--line:#dfe4ec;--panel:#f5f7fa;--good:#157347;
--bad:#b3261e;--write:#1f5fbf;--move:#7b3fb5;--remove:#b3261e;--other:#5b6678;--spread:#1f5fbf;--entries:#0b7a75;
--chunks:#6f7b8d;--near:#856900;--talk:#808a99;--life:#808a99;--fault:#a85400;--wall:#a8540022;--down:#808a99;
--conflict:#c23a7a;--focus:#0a58ca}
@media(prefers-color-scheme:dark){:root{--paper:#12161d;--ink:#e6eaf1;--soft:#9aa6b8;--line:#2a323e;--panel:#1a2029;
--good:#5cc88f;--bad:#ff8a80;--write:#7db1ff;--move:#c79bf2;--remove:#ff8a80;--other:#9aa6b8;--spread:#7db1ff;
--entries:#4fc4bd;--chunks:#8793a5;--near:#d8b84a;--talk:#667182;--life:#667182;--fault:#f0a050;--wall:#f0a05022;--down:#667182;
--conflict:#f28ab8;--focus:#8ab4ff}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:14px/1.45 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
main{max-width:1272px;margin:0 auto;padding:16px}
h1{font-size:22px;margin:0 0 4px}h2{font-size:16px;margin:28px 0 8px}
p{margin:4px 0}a{color:var(--focus)}
code,pre{font:12.5px/1.4 ui-monospace,"DejaVu Sans Mono",monospace}
pre{background:var(--panel);border:1px solid var(--line);border-radius:6px;padding:10px;overflow-x:auto;white-space:pre-wrap;overflow-wrap:anywhere}
.verdict{border-left:6px solid var(--good);background:var(--panel);padding:10px 14px;border-radius:0 6px 6px 0;margin:10px 0}
.verdict.failed{border-color:var(--bad)}
.verdict strong{color:var(--good)}.verdict.failed strong{color:var(--bad)}
dl{display:grid;grid-template-columns:max-content 1fr;gap:2px 14px;margin:6px 0}dt{color:var(--soft)}dd{margin:0}
.figures{display:flex;flex-wrap:wrap;gap:8px;margin:10px 0}
.figures div{background:var(--panel);border:1px solid var(--line);border-radius:6px;padding:6px 12px;min-width:104px}
.figures b{display:block;font-size:18px}.figures span{color:var(--soft);font-size:12px}
.bar{position:sticky;top:0;z-index:2;background:var(--paper);border-bottom:1px solid var(--line);padding:6px 0 0}
.controls{display:flex;flex-wrap:wrap;gap:10px;align-items:center;padding-bottom:6px}
.controls input[type=search]{width:260px;padding:5px 8px;border:1px solid var(--line);border-radius:5px;background:var(--panel);color:inherit;font:inherit}
.controls label{display:inline-flex;gap:5px;align-items:center;color:var(--soft)}
.controls button{padding:4px 10px;border:1px solid var(--line);border-radius:5px;background:var(--panel);color:inherit;font:inherit;cursor:pointer}
#told{margin-left:auto;color:var(--soft)}
.scroll{overflow-x:auto}
svg.diagram,svg.heads,svg.key{display:block;max-width:none}
text{font:11px system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif;fill:var(--ink)}
.heads .name{font-weight:600;font-size:12px}.heads .disk{fill:var(--soft);font-size:10px}
.life{stroke:var(--life);stroke-width:1}.grid{stroke:var(--line);stroke-width:.6;stroke-dasharray:2 5}
.tick{fill:var(--soft);font-size:10px}.idle{fill:var(--soft);font-size:9.5px;font-style:italic}
.down{fill:var(--down)}.wall{fill:var(--wall);stroke:var(--fault);stroke-width:.5;stroke-dasharray:3 3}.span{fill:var(--fault);opacity:.85}
.message{stroke-width:.9}
.message.entries{stroke:var(--entries);stroke-width:1.6}.message.chunks{stroke:var(--chunks);stroke-dasharray:8 3}
.message.near{stroke:var(--near);stroke-width:1.4;stroke-dasharray:1.5 3}.message.talk{stroke:var(--talk);stroke-width:.6}
.head.entries{fill:var(--entries)}.head.chunks{fill:var(--chunks)}.head.near{fill:var(--near)}.head.talk{fill:var(--talk)}.head.story{fill:var(--spread)}
.head.lost{fill:none;stroke:var(--bad);stroke-width:1.4}
.spread{fill:none;stroke:var(--spread);stroke-width:1.6;opacity:.8}
.spread:hover,.message:hover{opacity:1;stroke-width:2.6}
.stroke{stroke:var(--ink);stroke-width:1}.stroke.placed{fill:var(--ink)}.stroke.taken{fill:var(--paper)}.stroke.conflict{fill:var(--conflict);stroke:var(--conflict)}
.machine{font-size:12px;text-anchor:middle;font-weight:700;paint-order:stroke;stroke:var(--paper);stroke-width:3px}
.machine.crash,.machine.power{fill:var(--bad)}.machine.start{fill:var(--good);font-size:9px}
.machine.restore,.machine.wipe,.machine.suspend,.machine.resume{fill:var(--fault)}
.deed text,.fault text{paint-order:stroke;stroke:var(--paper);stroke-width:3.5px;stroke-linejoin:round}
.deed .sign{stroke-width:1.8;stroke-linejoin:round}
.deed.write .sign{fill:var(--write);stroke:var(--write)}.deed.move .sign{fill:var(--move);stroke:var(--move)}
.deed.remove .sign{fill:var(--paper);stroke:var(--remove)}.deed.other .sign{fill:var(--paper);stroke:var(--other)}
.deed .ring{fill:none!important;stroke:var(--bad);stroke-width:2.5}
.deed.involved text{fill:var(--bad);font-weight:700}
.fault .flag{fill:var(--fault)}.fault text{fill:var(--fault);font-style:italic}
[data-s]{cursor:pointer}
.deed:focus,.fault:focus{outline:none}
.deed:focus .sign{stroke:var(--focus);stroke-width:3.5}.fault:focus .flag{stroke:var(--focus);stroke-width:3}
.told .deed:not(.on),.told .stroke:not(.on),.told .spread:not(.on){opacity:.1}.told .message{opacity:.18}
.told .spread.on{stroke-width:2.4;opacity:1}
.no-messages .message,.no-faults .wall,.no-faults .span,.no-faults .fault{display:none}
#tip{position:fixed;z-index:5;max-width:440px;background:var(--ink);color:var(--paper);padding:7px 10px;border-radius:6px;font-size:12.5px;
white-space:pre-wrap;overflow-wrap:anywhere;pointer-events:none;box-shadow:0 3px 14px #0006}
#tip[hidden]{display:none}
table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:3px 8px;border-bottom:1px solid var(--line);vertical-align:top;overflow-wrap:anywhere}
th{color:var(--soft);font-weight:600;font-size:12.5px;white-space:nowrap}tbody th{font-weight:400;font-size:inherit;color:inherit}
tbody th[scope=rowgroup]{color:var(--soft);font-weight:600}caption{text-align:left;color:var(--soft);padding:0 8px 4px}td.number,th.number{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
tr.failed th:first-child{border-left:4px solid var(--bad)}tr.seldom td{color:var(--soft)}
.pass{color:var(--good);font-weight:600}.fail{color:var(--bad);font-weight:600}
.meter{display:inline-block;height:9px;background:var(--entries);border-radius:2px;min-width:1px;vertical-align:middle}
.legend{list-style:none;display:flex;flex-wrap:wrap;gap:4px 18px;margin:8px 0;padding:8px 12px;background:var(--panel);border:1px solid var(--line);border-radius:6px}
.legend li{display:inline-flex;align-items:center;gap:6px;font-size:12.5px}
details summary{cursor:pointer;color:var(--soft)}
th.words{width:46%}.strips{display:none}
.columns{columns:2;column-gap:32px}.columns p{break-inside:avoid}
:focus-visible{outline:2px solid var(--focus);outline-offset:2px}
@media print{:root{--paper:#fff;--ink:#000;--soft:#444;--line:#bbb;--panel:#fff}main{max-width:none;padding:0}
@page{size:landscape;margin:10mm}
.bar,#tip{display:none}.scroll{overflow:hidden}#diagram{position:absolute;width:0;height:0}
.strips{display:block}.strip{break-inside:avoid}svg.diagram,svg.heads{width:100%;height:auto}
h1,h2{break-after:avoid}tr,dt,dd{break-inside:avoid}details summary{display:none}*{-webkit-print-color-adjust:exact;print-color-adjust:exact}}
"""

SCRIPT: Final = """
(() => {
  const diagram = document.getElementById('diagram');
  if (!diagram) return;
  const tip = document.getElementById('tip'), search = document.getElementById('search'), told = document.getElementById('told');
  const parts = [...diagram.querySelectorAll('[data-s]')], stops = [...diagram.querySelectorAll('[tabindex]')];
  stops.sort((one, other) => one.getBoundingClientRect().top - other.getBoundingClientRect().top);
  const names = JSON.parse(document.getElementById('stories').textContent);
  const tips = new Map();
  for (const part of parts) {  // one tip is enough, and it must stay the name of what can be chosen
    const title = part.querySelector('title');
    tips.set(part, title.textContent);
    if (part.hasAttribute('tabindex')) part.setAttribute('aria-label', title.textContent);
    title.remove();
  }
  const of = part => part.dataset.s ? part.dataset.s.split(' ') : [];
  const show = (part, x, y) => {
    tip.textContent = tips.get(part);
    tip.hidden = false;
    const box = tip.getBoundingClientRect();
    tip.style.left = Math.max(4, Math.min(x + 14, innerWidth - box.width - 8)) + 'px';
    tip.style.top = (y + box.height + 22 > innerHeight ? Math.max(4, y - box.height - 10) : y + 16) + 'px';
  };
  const hide = () => { tip.hidden = true; };
  const tell = (wanted, words = '') => {
    diagram.classList.toggle('told', wanted !== null);
    let count = 0;
    for (const part of parts) {
      const on = wanted !== null && of(part).some(number => wanted.has(number));
      part.classList.toggle('on', on);
      if (on && part.classList.contains('deed')) count += 1;
    }
    told.textContent = wanted === null ? '' :
      wanted.size ? count + (count === 1 ? ' action' : ' actions') + ' of ' + [...wanted].map(n => names[n].find(path => path.toLowerCase().includes(words))).slice(0, 3).join(', ') + (wanted.size > 3 ? ' ...' : '') : 'no such file';
  };
  const ask = text => {
    const words = text.trim().toLowerCase();
    tell(words ? new Set(Object.keys(names).filter(n => names[n].some(path => path.toLowerCase().includes(words)))) : null, words);
  };
  const press = chosen => {
    for (const stop of stops) if (stop.hasAttribute('aria-pressed')) stop.setAttribute('aria-pressed', String(stop === chosen));
  };
  const choose = part => {
    if (!of(part).length) return;
    const pressed = part.getAttribute('aria-pressed') === 'true';
    search.value = pressed ? '' : names[of(part)[0]][0];
    tell(pressed ? null : new Set(of(part)));
    press(pressed ? null : part);
  };
  const release = () => { search.value = ''; tell(null); press(null); };
  diagram.addEventListener('mousemove', event => {
    const part = event.target.closest('[data-s]');
    part ? show(part, event.clientX, event.clientY) : hide();
  });
  diagram.addEventListener('mouseleave', hide);
  diagram.addEventListener('click', event => {
    const part = event.target.closest('[data-s]');
    part ? choose(part) : release();
  });
  diagram.addEventListener('focusin', event => {
    const part = event.target.closest('[data-s]'), box = part.getBoundingClientRect();
    if (part.matches(':focus-visible')) show(part, box.left, box.bottom - 10);
  });
  diagram.addEventListener('focusout', hide);
  diagram.addEventListener('keydown', event => {
    const at = stops.indexOf(document.activeElement);
    const step = {ArrowDown: 1, j: 1, ArrowUp: -1, k: -1}[event.key];
    if (step && stops[at + step]) { stops[at + step].focus(); event.preventDefault(); }
    if ((event.key === 'Enter' || event.key === ' ') && at >= 0) { choose(stops[at]); event.preventDefault(); }
  });
  document.addEventListener('keydown', event => {
    if (event.key === 'Escape') { release(); hide(); }
    if (event.key === '/' && document.activeElement !== search) { search.focus(); event.preventDefault(); }
  });
  search.addEventListener('input', () => { press(null); ask(search.value); });
  addEventListener('beforeprint', () => document.querySelectorAll('details').forEach(part => { part.open = true; }));
  for (const box of document.querySelectorAll('[data-hides]'))
    box.addEventListener('change', () => diagram.classList.toggle('no-' + box.dataset.hides, !box.checked));
  for (const link of document.querySelectorAll('a[href^="#action-"]'))
    link.addEventListener('click', event => {
      const part = document.querySelector(link.getAttribute('href'));
      if (part) { event.preventDefault(); part.scrollIntoView({block: 'center'}); part.focus(); }
    });
})();
"""
