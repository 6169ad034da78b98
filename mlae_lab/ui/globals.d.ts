// What the scripts of this folder find in the browser besides the DOM. For tsc only; nothing of it is sent.

/** What Streamlit calls a component with; its own style sheet and nodes may be in a shadow tree. */
interface ComponentArguments<Data> {
  data: Data;
  parentElement: HTMLElement | ShadowRoot;
  setStateValue(name: string, value: unknown): void;
  setTriggerValue(name: string, value: unknown): void;
}

/** One series of a Plotly figure. Only the attributes that the scripts read are typed. */
interface PlotlyTrace {
  name?: string;
  meta?: unknown;
  x?: (number | string)[];
  y?: (number | string)[];
  z?: number[][];
  [attribute: string]: unknown;
}

interface PlotlyLayout {
  height: number;
  margin: { l: number; r: number; t: number; b: number };
  /** fit: an image of so many cells across and down, each at most so many pixels wide. */
  meta?: { fit?: { across: number; down: number; most: number } };
  shapes?: object[];
  title?: { text: string };
  [attribute: string]: unknown;
}

interface PlotlyFigure {
  data: PlotlyTrace[];
  layout: PlotlyLayout;
}

/** The node that Plotly has drawn into. */
interface PlotlyNode extends HTMLElement {
  data?: PlotlyTrace[];
  layout?: PlotlyLayout;
  on?(event: string, listener: (event: { annotation: { name?: string } }) => void): void;
}

interface PlotlyLibrary {
  Icons: { camera: object };
  react(node: PlotlyNode, data: PlotlyTrace[], layout: PlotlyLayout, options: object): Promise<unknown>;
  relayout(node: PlotlyNode, change: object): void;
  restyle(node: PlotlyNode, change: object): void;
  purge(node: PlotlyNode): void;
  downloadImage(
    figure: PlotlyFigure,
    options: { format: string; scale?: number; width: number; height: number; filename: string },
  ): void;
}

interface Window {
  /** Set by the script that `loadPlotly` adds. */
  Plotly?: PlotlyLibrary;
  /** Set by `history.js`. */
  hasOneEntryPerView?: boolean;
}
