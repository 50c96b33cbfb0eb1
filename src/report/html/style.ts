/** The style sheet of the HTML report: light and dark, phone and desktop; nothing is loaded from anywhere. */

export const STYLE = `
:root {
  color-scheme: light dark;
  --page: #f5f7fa; --card: #ffffff; --line: #e3e8ef; --soft: #f0f3f7;
  --good: #0b7a4b; --bad: #b4232f; --warn-bg: #fff6e0; --warn-line: #e6b84c;
  --fc-ink: #1b2330; --fc-muted: #5b6675; --fc-grid: #e3e8ef; --fc-pale: #c3ccd9;
  --fc-c1: #2563c9; --fc-c2: #c26a05; --fc-c3: #0b8a78; --fc-c4: #b03078; --fc-c5: #6f4fc9; --fc-c6: #64748b;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #10141b; --card: #181e27; --line: #2a323e; --soft: #202833;
    --good: #4cc38a; --bad: #ff8087; --warn-bg: #2e2614; --warn-line: #8a6d24;
    --fc-ink: #e7ecf3; --fc-muted: #9aa7b8; --fc-grid: #2a323e; --fc-pale: #465365;
    --fc-c1: #6ea8fe; --fc-c2: #f0a645; --fc-c3: #45cdb8; --fc-c4: #f08cc0; --fc-c5: #b39dfb; --fc-c6: #94a3b8;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0; background: var(--page); color: var(--fc-ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; font-variant-numeric: tabular-nums;
}
main { max-width: 1060px; margin: 0 auto; padding: 28px 20px 56px; }
header { margin-bottom: 22px; }
.brand { color: var(--fc-c1); font-weight: 650; font-size: 13px; letter-spacing: .02em; }
h1 { font-size: 26px; line-height: 1.25; margin: 2px 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 17px; margin: 0 0 2px; }
.sub, .caption { color: var(--fc-muted); margin: 0; overflow-wrap: anywhere; }
.caption { font-size: 13px; margin-bottom: 10px; }
.outcome { margin-top: 14px; }
section, .card, .notice {
  background: var(--card); border: 1px solid var(--line); border-radius: 10px; min-width: 0;
}
section { padding: 18px 20px; margin-top: 16px; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(190px, 1fr)); gap: 12px; }
.card { padding: 14px 16px; }
.card .label { color: var(--fc-muted); font-size: 13px; }
.card .value { font-size: 25px; font-weight: 650; line-height: 1.25; overflow-wrap: anywhere; }
.card .note { font-size: 13px; color: var(--fc-muted); }
.good { color: var(--good); } .bad { color: var(--bad); }
.card .note > span { display: block; font-weight: 600; }
.notice { margin-top: 16px; padding: 12px 16px; background: var(--warn-bg); border-color: var(--warn-line); }
.notice ul { margin: 4px 0 0; padding-left: 20px; }
.notice li, .notice p { overflow-wrap: anywhere; margin: 0; }
.pair { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 16px; margin-top: 16px; }
.pair > section { margin-top: 0; }
.plot svg { display: block; max-width: 100%; height: auto; }
.plot svg text { font-family: inherit; }
.plot .narrow { display: none; }
.facts { display: grid; grid-template-columns: fit-content(45%) minmax(0, 1fr); gap: 3px 18px; margin: 8px 0 0; }
.facts dt { color: var(--fc-muted); } .facts dd { margin: 0; overflow-wrap: anywhere; }
.columns { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 4px 40px; align-items: start; }
.scroll { overflow-x: auto; max-height: 620px; overflow-y: auto; margin-top: 10px; border: 1px solid var(--line); border-radius: 8px; }
table { border-collapse: collapse; width: 100%; font-size: 13.5px; }
th, td { padding: 6px 12px; text-align: left; white-space: nowrap; border-bottom: 1px solid var(--line); }
tr:last-child > td { border-bottom: 0; }
th { position: sticky; top: 0; background: var(--soft); color: var(--fc-muted); font-weight: 600; font-size: 12.5px; }
th.n, td.n { text-align: right; }
td.name { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; font-size: 12.5px; white-space: normal; overflow-wrap: anywhere; min-width: 220px; }
td.prose { white-space: normal; min-width: 150px; }
td.prose small { display: block; color: var(--fc-muted); font-size: 12.5px; }
pre {
  margin: 10px 0 0; padding: 12px 14px; background: var(--soft); border-radius: 8px; font-size: 13px;
  font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; white-space: pre-wrap; overflow-wrap: anywhere;
}
footer { margin-top: 22px; color: var(--fc-muted); font-size: 13px; overflow-wrap: anywhere; }
@media (max-width: 760px) {
  main { padding: 18px 12px 40px; }
  section { padding: 14px 12px; }
  h1 { font-size: 21px; }
  .cards { grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 8px; }
  .card { padding: 10px 12px; }
  .card:last-child:nth-child(odd) { grid-column: span 2; }
  .card .value { font-size: 20px; }
  .pair, .columns { grid-template-columns: minmax(0, 1fr); }
  .plot .wide { display: none; }
  .plot .narrow { display: block; }
  .plot .narrow svg { width: 100%; max-width: 480px; margin: 0 auto; }
  .facts { gap: 3px 12px; }
  th, td { padding: 5px 8px; }
  td.name { min-width: 130px; }
  td:first-child { white-space: normal; }
}
@media print {
  body { background: none; } section, .card { break-inside: avoid; } .scroll { max-height: none; overflow: visible; }
}
`;
