"""The bench's looks. Colours come from JupyterLab's theme, so that light and dark both hold."""

from __future__ import annotations

CSS = """
.ssl-bench { container-type: inline-size; width: 100%; color: var(--jp-ui-font-color1, #222);
  font-family: var(--jp-ui-font-family, system-ui, sans-serif); overflow: clip; }
.ssl-bench .ssl-body { display: grid; grid-template-columns: minmax(300px, 360px) minmax(0, 1fr);
  grid-template-rows: auto 1fr; gap: 4px 20px; width: 100%; align-items: start; overflow: visible; }
.ssl-bench .widget-html-content { line-height: 1.35; }
.ssl-bench :is(button, input, select, textarea, .noUi-handle):focus-visible { outline: 2px solid #2a8fd4 !important;
  outline-offset: 1px; }
.ssl-bench h3 { font-size: 14px; font-weight: 600; margin: 6px 0 2px; }
.ssl-bench p { margin: 2px 0; }
.ssl-bench .ssl-left, .ssl-bench .ssl-right, .ssl-bench .ssl-knobs { width: 100%; min-width: 0; overflow: visible; }
.ssl-bench .ssl-right { grid-column: 2; grid-row: 1 / span 2; }
.ssl-bench .ssl-panels { display: grid; width: 100%; gap: 10px 14px;
  grid-template-columns: repeat(auto-fill, minmax(min(300px, 100%), 1fr)); }
.ssl-bench .ssl-panel { border: 1px solid var(--jp-border-color2, #ddd); border-radius: 6px; padding: 2px 8px 4px;
  min-width: 0; overflow: hidden; background: var(--jp-layout-color1, #fff); contain: layout paint style; }
.ssl-bench .ssl-panel :is(p, details) { font-size: 12px; color: var(--jp-ui-font-color2, #555); }
.ssl-bench .ssl-panel summary { cursor: pointer; }
.ssl-bench .ssl-about .widget-html-content { font-size: 12px; line-height: 1.3; white-space: normal;
  color: var(--jp-ui-font-color2, #555); }
.ssl-bench .ssl-knob { display: grid; width: 100%; align-items: center; column-gap: 8px;
  grid-template-columns: 112px minmax(0, 1fr) minmax(46px, auto); padding-bottom: 4px; }
.ssl-bench .ssl-knob .ssl-help { grid-column: 1 / -1; }
.ssl-bench .ssl-help .widget-html-content { font-size: 11px; color: var(--jp-ui-font-color2, #666); line-height: 1.25;
  white-space: normal; }
.ssl-bench .ssl-knob:has(> .ssl-family) .ssl-help { grid-column: 1 / 3; }
.ssl-bench .ssl-family { grid-column: 3; justify-self: end; align-self: start; width: auto; height: 24px;
  margin: 0 3px 0 0; padding: 0 6px; font-size: 11px; line-height: 22px;
  border: 1px solid var(--jp-border-color2, #ddd); border-radius: 4px; background: none;
  color: var(--jp-ui-font-color2, #555); }
.ssl-bench .ssl-family:hover:enabled { color: var(--jp-ui-font-color1, #222);
  background: var(--jp-layout-color2, #eee); }
.ssl-bench .ssl-family:disabled { visibility: hidden; }
@media (pointer: coarse) { .ssl-bench .ssl-family { height: 36px; min-width: 48px; line-height: 34px; } }
.ssl-bench .ssl-family-bar { width: 100%; flex-wrap: wrap; align-items: center; gap: 4px 12px; height: auto;
  overflow: visible; }
.ssl-bench .ssl-family-bar .widget-html { height: auto; margin: 0; flex: 1 1 240px; min-width: 0; }
.ssl-bench .ssl-family-bar .widget-html-content { white-space: normal; }
.ssl-bench .ssl-family-bar button { width: auto; margin: 0; }
.ssl-bench .ssl-members { display: flex; flex-wrap: wrap; gap: 2px 16px; align-items: center; }
.ssl-bench .ssl-members .ssl-key { margin: 0; font-variant-numeric: tabular-nums; }
.ssl-bench .ssl-members small { font-weight: 400; }
.ssl-bench .ssl-idle { font-style: italic; }
.ssl-bench .ssl-engine-value { text-align: right; }
.ssl-bench .ssl-engine-value .widget-html-content { font-variant-numeric: tabular-nums; font-weight: 600; }
.ssl-bench .ssl-engine-value small { display: none; }
.ssl-bench .ssl-knob label, .ssl-bench .ssl-knob .widget-html { height: auto; margin: 0; min-width: 0; }
.ssl-bench .ssl-setup { display: grid; grid-template-columns: 60px minmax(0, 1fr); align-items: center; width: 100%; }
.ssl-bench .ssl-buttons { width: 100%; flex-wrap: wrap; gap: 4px; }
.ssl-bench .ssl-buttons > button { flex: 1 1 64px; width: auto; min-width: 0; margin: 0; }
.ssl-bench .ssl-row { align-items: center; gap: 8px; }
.ssl-bench .ssl-stage { width: 100%; padding: 4px 0 8px; overflow: visible;
  border-bottom: 1px solid var(--jp-border-color2, #ddd); margin-bottom: 6px; }
.ssl-bench .ssl-stage-words { width: 100%; height: auto; margin: 0 0 4px; }
.ssl-bench .ssl-stage-words .widget-html-content { white-space: normal; overflow-wrap: anywhere; }
.ssl-bench .ssl-stage .ssl-buttons > button { flex: 1 1 120px; }
.ssl-bench .ssl-group { border-top: 1px solid var(--jp-border-color2, #ddd); width: 100%; margin-top: 4px; }
.ssl-bench .ssl-headline { font-variant-numeric: tabular-nums; }
.ssl-bench .ssl-headline .widget-html-content { font-size: 14px; white-space: normal; }
.ssl-bench .ssl-words .widget-html-content { font-size: 16px; white-space: normal; }
.ssl-bench .ssl-state { border-radius: 9px; padding: 1px 8px; font-size: 12px; border: 1px solid currentColor; }
.ssl-bench .ssl-running { color: light-dark(#00714f, #2fc79a); }
.ssl-bench .ssl-failed { color: light-dark(#b03c05, #ff9a62); }
.ssl-bench .ssl-error { border-left: 4px solid #d55e00; padding: 6px 10px; white-space: normal;
  background: color-mix(in srgb, #d55e00 12%, transparent); }
.ssl-bench .ssl-hint { border-left: 4px solid #2a8fd4; padding: 6px 10px; white-space: normal; }
.ssl-bench .ssl-banner, .ssl-bench .ssl-words, .ssl-bench .ssl-headline {
  width: 100%; height: auto; margin: 0; }
.ssl-bench .bqplot { --bq-content-font-color: var(--jp-ui-font-color1); --bq-axislabel-fill: var(--jp-ui-font-color1);
  --bq-plotarea-background-fill: transparent; }
.ssl-bench .bqplot .axislabel { font-size: 12px; }
.ssl-bench .ssl-legend { width: 100%; height: auto; margin: 0; }
.ssl-bench .ssl-legend .widget-html-content { white-space: normal; }
.ssl-bench .ssl-key { display: inline-flex; align-items: center; gap: 6px; margin-right: 16px; font-weight: 600; }
.ssl-bench .ssl-difference { font-variant-numeric: tabular-nums; }
.ssl-bench .ssl-right > :has(> .ssl-timeline), .ssl-bench .ssl-timeline { display: contents; }
.ssl-bench .ssl-timeline .ssl-scrub { position: sticky; bottom: 0; z-index: 30; width: 100%; padding: 2px 0 0;
  color: var(--jp-ui-font-color1, #222); font: 13px/1.35 var(--jp-ui-font-family, system-ui, sans-serif);
  background: var(--jp-layout-color0, #fff); border-top: 1px solid var(--jp-border-color2, #ddd); margin-top: 8px; }
.ssl-bench .jupyter-widgets-disconnected::before { display: none; }
.ssl-bench .ssl-export .ssl-buttons { flex-wrap: nowrap; margin: 4px 0; }
.ssl-bench .ssl-export .ssl-buttons > button { flex: 0 0 auto; }
@container (max-width: 760px) {
  .ssl-bench .ssl-body { grid-template-columns: minmax(0, 1fr); grid-template-rows: none; }
  .ssl-bench .ssl-right { grid-column: 1; grid-row: auto; }
}
"""
