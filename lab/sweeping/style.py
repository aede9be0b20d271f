"""Looks of the page of sweeps, besides those of the bench."""

from __future__ import annotations

CSS = """
.ssl-sweeps .ssl-body { grid-template-columns: minmax(0, 1fr) minmax(280px, 340px); grid-template-rows: none; }
.ssl-sweeps .ssl-body.ssl-none { grid-template-columns: minmax(0, 640px); }
.ssl-sweeps .ssl-main, .ssl-sweeps .ssl-side { width: 100%; min-width: 0; overflow: visible; }
.ssl-sweeps .widget-html, .ssl-sweeps .jupyter-widgets.widget-html { height: auto; margin: 0; width: 100%; }
.ssl-sweeps .widget-html-content { white-space: normal; overflow-wrap: anywhere; }
.ssl-sweeps h2 { font-size: 17px; font-weight: 600; margin: 4px 0 6px; }
.ssl-sweeps .ssl-choose { width: 100%; margin: 0 0 4px; }
.ssl-sweeps .ssl-choose .widget-label { width: auto; min-width: 46px; }
.ssl-sweeps .ssl-standing { width: 100%; align-items: center; gap: 8px; overflow: visible; }
.ssl-sweeps .ssl-standing > .widget-html { flex: 1 1 0; width: auto; min-width: 0; }
.ssl-sweeps .ssl-standing > button { flex: none; width: auto; margin: 0; }
.ssl-sweeps .ssl-sentence { font-size: 16px; }
.ssl-sweeps .ssl-side .ssl-buttons > button { flex: 1 1 auto; }
.ssl-sweeps .ssl-side .ssl-buttons { margin: 4px 0; }
.ssl-sweeps progress { width: 100%; height: 12px; accent-color: #2a8fd4; }
.ssl-sweeps .ssl-panel { width: 100%; }
.ssl-sweeps .ssl-summary { display: grid; width: 100%; gap: 6px 14px; margin: 6px 0; overflow: visible;
  align-items: start; grid-template-columns: repeat(auto-fit, minmax(min(380px, 100%), 1fr)); }
.ssl-sweeps .ssl-lines { position: relative; display: block; width: 100%; min-width: 0; max-height: 480px;
  overflow: auto; }
.ssl-sweeps table:focus-visible, .ssl-sweeps pre:focus-visible { outline: 2px solid #2a8fd4; outline-offset: -2px; }
.ssl-sweeps .ssl-lines table { border-collapse: collapse; font-size: 12.5px; font-variant-numeric: tabular-nums;
  color: var(--jp-ui-font-color1, #222); margin: 4px 2px; }
.ssl-sweeps .ssl-lines caption { text-align: left; font-size: 12px; color: var(--jp-ui-font-color2, #555); }
.ssl-sweeps .ssl-lines :is(th, td) { padding: 3px 8px; border-bottom: 1px solid var(--jp-border-color2, #ddd);
  text-align: right; background: none; font-weight: 400; white-space: nowrap; }
.ssl-sweeps .ssl-lines th[scope=row] { white-space: normal; overflow-wrap: anywhere; }
.ssl-sweeps .ssl-lines table { width: 100%; }
.ssl-sweeps .ssl-lines thead th { font-weight: 600; }
.ssl-sweeps .ssl-lines :is(th[scope=row], thead th:first-child) { text-align: left; }
.ssl-sweeps textarea, .ssl-sweeps pre.ssl-toml { box-sizing: border-box; width: 100%; margin: 4px 0; padding: 6px 8px;
  font: 12px/1.4 var(--jp-code-font-family, monospace); color: var(--jp-ui-font-color1, #222);
  background: var(--jp-layout-color2, #f5f5f5); border: 1px solid var(--jp-border-color1, #bdbdbd);
  border-radius: 4px; }
.ssl-sweeps pre.ssl-toml { overflow-x: auto; white-space: pre-wrap; overflow-wrap: anywhere; }
.ssl-sweeps .ssl-side a { color: light-dark(#0a5a96, #7cc0f0); text-decoration: underline; }
.theme-light .ssl-sweeps, [data-jp-theme-light=true] .ssl-sweeps { color-scheme: light; }
.theme-dark .ssl-sweeps, [data-jp-theme-light=false] .ssl-sweeps { color-scheme: dark; }
@container (max-width: 900px) {
  .ssl-sweeps .ssl-body { grid-template-columns: minmax(0, 1fr); }
}
"""
