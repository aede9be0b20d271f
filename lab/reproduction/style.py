"""Looks of the page on which the papers are reproduced, besides those of the bench."""

from __future__ import annotations

CSS = """
.ssl-reproduction .ssl-body { grid-template-columns: minmax(300px, 380px) minmax(0, 1fr); }
.ssl-reproduction .ssl-lesson, .ssl-reproduction .ssl-work { width: 100%; min-width: 0; overflow: visible; }
.ssl-reproduction .widget-html, .ssl-reproduction .jupyter-widgets.widget-html { height: auto; margin: 0; width: 100%; }
.ssl-reproduction .widget-html-content { white-space: normal; overflow-wrap: anywhere; }
.ssl-reproduction h2 { font-size: 17px; font-weight: 600; margin: 4px 0 6px; }
.ssl-reproduction .ssl-bet { border: 1px solid var(--jp-border-color2, #ddd); border-radius: 6px; padding: 6px 10px;
  margin-bottom: 8px; width: 100%; background: var(--jp-layout-color1, #fff); overflow: visible; }
.ssl-reproduction .ssl-bet .ssl-question { font-size: 14px; font-weight: 600; }
.ssl-reproduction .ssl-bet .widget-radio { width: 100%; height: auto; margin: 4px 0; }
.ssl-reproduction .ssl-bet .widget-radio-box { width: 100%; margin: 0; gap: 2px; }
.ssl-reproduction .ssl-bet .widget-radio-box label { height: auto; min-height: 24px; line-height: 1.3; width: 100%;
  display: flex; align-items: center; gap: 8px; cursor: pointer; color: var(--jp-ui-font-color1, #222); }
.ssl-reproduction .ssl-bet .widget-radio-box input { margin: 0; flex: none; order: -1; }
.ssl-reproduction .ssl-lesson > button { width: auto; max-width: 100%; margin: 0 0 8px; }
.ssl-reproduction .ssl-verdict { border-left: 4px solid #2a8fd4; padding: 2px 0 2px 10px; margin-top: 4px; }
.ssl-reproduction .ssl-verdict p { margin: 4px 0; }
.ssl-reproduction .ssl-verdict b { font-weight: 600; }
.ssl-reproduction .ssl-holds { color: light-dark(#00714f, #2fc79a); }
.ssl-reproduction .ssl-fails { color: light-dark(#b03c05, #ff9a62); }
.ssl-reproduction .ssl-charts { display: grid; width: 100%; gap: 10px 14px;
  grid-template-columns: repeat(auto-fit, minmax(min(360px, 100%), 1fr)); overflow: visible; }
.ssl-reproduction .ssl-choose { width: 100%; margin: 0; }
.ssl-reproduction .ssl-choose .widget-label { width: auto; min-width: 46px; }
.ssl-reproduction .ssl-key svg { vertical-align: middle; }
.ssl-reproduction .ssl-key { font-weight: 400; margin-right: 14px; }
.ssl-reproduction .ssl-table { position: relative; width: 100%; overflow-x: auto; overflow-y: hidden;
  margin-top: 8px; display: block; }
.ssl-reproduction .ssl-table .widget-html { width: max-content; min-width: 100%; }
.ssl-reproduction .ssl-table table:focus-visible, .ssl-reproduction textarea:focus-visible {
  outline: 2px solid #2a8fd4; outline-offset: -2px; }
.ssl-reproduction table { border-collapse: collapse; font-size: 12.5px; font-variant-numeric: tabular-nums;
  color: var(--jp-ui-font-color1, #222); min-width: 100%; }
.ssl-reproduction caption { text-align: left; padding: 0 0 4px; font-size: 12px;
  color: var(--jp-ui-font-color2, #555); }
.ssl-reproduction :is(th, td) { padding: 4px 6px; border-bottom: 1px solid var(--jp-border-color2, #ddd);
  text-align: right; white-space: nowrap; background: none; vertical-align: top; }
.ssl-reproduction thead th { vertical-align: bottom; white-space: normal; max-width: 6em; font-weight: 600; }
.ssl-reproduction thead th[scope=colgroup] { text-align: center; max-width: none; }
.ssl-reproduction th:is([scope=row], [scope=rowgroup]) { text-align: left; font-weight: 400; overflow-wrap: normal; }
.ssl-reproduction :is(th[scope=row], .ssl-corner) { position: sticky; left: 0; z-index: 1; padding-right: 10px;
  background: var(--jp-layout-color0, #fff); white-space: normal; }
.ssl-reproduction th[scope=row] span { display: block; width: 210px; }
.ssl-reproduction thead .ssl-corner { text-align: left; }
.ssl-reproduction .ssl-unseen { position: absolute; width: 1px; height: 1px; margin: -1px; overflow: hidden;
  clip-path: inset(50%); }
.ssl-reproduction th[scope=rowgroup] { font-weight: 600; padding-top: 10px; }
.ssl-reproduction th[scope=rowgroup] span { position: sticky; left: 8px; }
.ssl-reproduction td small, .ssl-reproduction th small { color: var(--jp-ui-font-color2, #555); font-size: 11px; }
.ssl-reproduction td.ssl-hidden { text-align: left; font-style: italic; color: var(--jp-ui-font-color2, #555); }
.ssl-reproduction .ssl-work progress { width: 100%; height: 14px; }
.ssl-reproduction progress { accent-color: #2a8fd4; }
.ssl-reproduction .ssl-work .ssl-buttons { margin: 4px 0; }
.ssl-reproduction .ssl-command-knobs { display: grid; grid-template-columns: minmax(0, 1fr); width: 100%; }
.ssl-reproduction .ssl-command-knobs .widget-label { width: 64px; }
.ssl-reproduction textarea { box-sizing: border-box; width: 100%; resize: vertical; padding: 6px 8px;
  font: 12px/1.4 var(--jp-code-font-family, monospace); color: var(--jp-ui-font-color1, #222);
  background: var(--jp-layout-color2, #f5f5f5); border: 1px solid var(--jp-border-color1, #bdbdbd);
  border-radius: 4px; }
.ssl-reproduction a { color: light-dark(#0a5a96, #7cc0f0); }
body[data-voila] .jp-RenderedMarkdown p a { text-decoration: underline; }
@container (max-width: 760px) {
  .ssl-reproduction .ssl-body { grid-template-columns: minmax(0, 1fr); }
  .ssl-reproduction th[scope=row] span { width: 132px; }
}
"""
