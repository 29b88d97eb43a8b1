// Types that the widgets' scripts share, for tsc and for editors; no page loads this file.
// What `State` and `Data` mean is described in the view-models, gqa.py and so on.

declare global {
  /** From `source` in _base.py: 256 colors of six hexadecimal digits each. */
  const MAPS: Record<ColorMap, string>;
}
export type ColorMap = "viridis" | "RdBu_r" | "cividis";

// ---- the model: what travels between the kernel and the page ----

/** The values of a widget by name. */
export interface Values {
  state: object;
  data: object;
}

/** What `render` gets: anywidget's model, or that of `standalone`, which has no kernel. */
export interface Model<V extends Values> {
  alone?: boolean;
  /** Whether the page itself computes, with an engine. */
  live?: boolean;
  /** Ask the kernel, or the engine of a page that has one; absent where nobody answers. */
  send?(message: object): void;
  /** JupyterLab's has the kernel, which is null once it was shut down. */
  widget_manager?: { kernel?: { status: string } | null };
  get<Name extends keyof V>(name: Name): V[Name];
  set<Name extends keyof V>(name: Name, value: V[Name]): void;
  save_changes(): void;
  on(event: string, listener: Listener): void;
  off(event: string, listener: Listener): void;
}

/** Called without a message when a value changes; with one for "msg:custom". */
export type Listener = (message?: Answer) => void;

/** The model of an exported page. */
export interface Standalone extends Model<any> {
  /** Call those that listen to an event. */
  emit(event: string, message?: Answer): void;
}

/** What the kernel says of a question, by the question's id, or of a choice that went wrong. */
export interface Answer {
  heard?: string;
  done?: string;
  error?: string;
}

/** The values of a widget that takes a prompt. */
export interface PromptValues extends Values {
  prompt: string;
}

/** Where a widget is built; `body`, `controls` and `stage` are new for each text. */
export interface Shell {
  root: Root;
  body: HTMLElement;
  controls: HTMLElement;
  stage: HTMLElement;
  live: Live;
}

/** Change some of what was chosen. */
export type Choose<State> = (patch: Partial<State>) => void;

/** Bytes as they come: from a notebook or from a page; often compressed. */
export type Packed = Uint8Array<ArrayBuffer> | DataView<ArrayBuffer> | ArrayBuffer;

/** Numbers by index: an array of any kind. */
export type Numbers = ArrayLike<number>;

// ---- elements ----

/** A widget's root; `qk` holds what is shown, for tests. */
export type Root = HTMLElement & { qk?: object };
export type Live = HTMLElement & { timer?: number };
export type Child = Node | string;

/** What `node` accepts: an attribute, or with a name like "onclick" a listener. */
export type Attribute = string | number | boolean | null | undefined | ((event: Event) => void);
export type Attributes = Record<string, Attribute>;

export interface SliderOptions {
  label: string;
  min: number;
  max: number;
  step?: number;
  value: number;
  on: (value: number) => void;
  show?: (value: number) => string;
}

/** The text is its own key, or a pair of key and text. */
export type Option = string | [string, string];

/** A row of `barTable`; bars: length from 0 to 1, and color. */
export interface BarRow {
  name: string;
  bars: [number, string][];
  texts: string[];
  faint?: boolean;
}

/** The options of `triangleMap`; all others are attributes of its canvas. */
export interface MapOptions {
  labels: string[];
  letters: number;
  largest: number;
  most: number;
  name: (position: number) => string;
  at: () => number;
  pick: (position: number) => void;
  [attribute: string]: unknown;
}

export interface TriangleMap {
  box: HTMLElement;
  canvas: HTMLCanvasElement;
  draw(triangle: Numbers, position: number, how?: MapLook): void;
  words(event: MouseEvent): string | null;
  middle(row: number, key: number): [number, number];
}

/** byKey: a key's column is framed, not a query's row; span: positions a side, 0 for all. */
export interface MapLook {
  byKey?: boolean;
  faint?: boolean;
  span?: number;
}

// ---- attention ----

/** Each head's attention is a lower triangle, row by row, a byte per weight. */
export interface Patterns {
  layers: number;
  heads: number;
  weights: Packed;
  titles: string[][];
}

export interface AttentionState {
  layer: number;
  head: number;
  token: number;
  arcs: "attends to" | "is attended to by";
  faint: boolean;
}

export interface AttentionData extends Patterns {
  labels: string[];
  length: number;
  factor: number;
  /** A head type, the layer and head that are most of it, and a position that shows it. */
  strongest: [string, number, number, number][];
  pooling: string;
  meaning: string;
}

export type AttentionModel = Model<{ state: AttentionState; data: AttentionData }>;
export type TriangleAt = (layer: number, head: number) => Uint8Array;

// ---- one layer ----

export interface LayerState {
  layer: number;
  head: number;
  token: number;
  other_token: number;
  off: [number, number] | null;
}

/** After the embedding and after each layer: the most likely tokens and their probabilities. */
export type Lens = [string, number][][];

export interface OtherText {
  tokens: string[];
  weights: Packed;
}

export interface LayerData extends Patterns {
  tokens: string[];
  kv_heads: number;
  dim: number;
  width: number;
  queries: Packed;
  query_steps: number[];
  keys: Packed;
  key_steps: number[];
  units: Packed;
  cos: Packed;
  sin: Packed;
  acts: Packed;
  norms: Packed;
  embed_norms: Packed;
  lens: Record<string, Lens>;
  other: OtherText | null;
}

/** `data` unpacked. */
export interface LayerArrays {
  weights: Uint8Array;
  queries: Int16Array;
  keys: Int16Array;
  units: Uint16Array;
  cos: Float32Array;
  sin: Float32Array;
  acts: Float32Array;
  norms: Float32Array;
  embed_norms: Float32Array;
  other?: Uint8Array;
}

/** The kernel's answer for a token; empty before the first one. */
export interface LensAnswer {
  token?: number;
  rows: Lens;
}

/** Next tokens with a head and without it; empty before the first answer. */
export interface Comparison {
  off?: [number, number];
  moved: number[];
  rows: ComparedToken[][];
}

/** A token, its id, and its probability with the head and without it. */
export type ComparedToken = [string, number, number, number];

export type LayerModel = Model<{
  state: LayerState;
  data: LayerData;
  lens?: LensAnswer;
  without?: Comparison;
}>;

/** A vector before and after RoPE. */
export interface Rotated {
  before: number[];
  after: number[];
}

export interface LayerValues {
  triangle: Uint8Array;
  row: number[];
  otherTriangle: Uint8Array | null | undefined;
  kv: number;
  query: Rotated;
  key: Rotated;
  units: [number, number][];
  norms: number[];
}

export interface LayerAnswers {
  lens: Lens | null;
  without: Comparison | null;
}

export type LayerShown = LayerValues & LayerAnswers & { state: LayerState };

// ---- grouped-query attention ----

export interface GqaShape {
  heads: number;
  kv_heads: number;
  head_dim: number;
  layers: number;
}

export interface GqaState extends GqaShape {
  tokens: number;
  value_bytes: number;
  head: number;
}

export interface GqaData {
  presets: Record<string, GqaShape & { tokens: number }>;
  own: string;
  most: { heads: number; head_dim: number; layers: number; tokens: number };
  bytes: Record<string, string>;
}

export type GqaModel = Model<{ state: GqaState; data: GqaData }>;

/** With a kv head for each query head, with as many as are chosen, and with one. */
export type ByKind = Record<"MHA" | "chosen" | "MQA", number>;

export interface CacheBytes {
  kept: ByKind;
  token: ByKind;
  whole: ByKind;
}

/** A row of boxes in the picture of the heads. */
export interface HeadRow {
  count: number;
  width: number;
  y: number;
  letters: string[];
}

// ---- RoPE ----

export interface RopeState {
  pair: number;
  query: number;
  key: number;
  theta: number;
}

export interface RopeData {
  thetas: number[];
  own: number;
  frequencies: number[][];
  factor: number;
  vectors: [number[], number[]];
  positions: number;
  scaled: string | null;
}

export type RopeModel = Model<{ state: RopeState; data: RopeData }>;
export type Point = [number, number];

export interface RopeNow {
  before: Point[];
  after: Point[];
  angles: number[];
  product: number;
  pairProduct: number;
  products: number[];
  pairProducts: number[];
  cos: Float32Array;
  sin: Float32Array;
  title: string;
}

export interface Rope {
  at(state: RopeState): RopeNow;
  half: number;
  positions: number;
}

export type Color = (name: string) => string;

/** A panel; with `words` its canvas has a label that follows the mouse. */
export interface RopePanel {
  panel: HTMLElement;
  /** `color(name)` is a color of style.css as a canvas takes it. */
  draw(state: RopeState, now: RopeNow, color: Color): void;
  canvas?: HTMLCanvasElement;
  words?(event: MouseEvent): string | null;
}

// ---- sampling ----

export type Filter = "top_k" | "top_p" | "min_p";

export interface SamplingSettings extends Record<Filter, number> {
  temperature: number;
}

export interface SamplingState extends SamplingSettings {
  seed: number;
  draws: number;
}

export interface SamplingData {
  logits: Packed;
  names: string[];
  ids: number[];
  prompt: string[];
  shown: number;
  most_draws: number;
}

export type SamplingModel = Model<{ state: SamplingState; data: SamplingData }>;

export interface Sampled {
  /** How many are kept. */
  end: number;
  /** Their probability at the temperature. */
  share: number;
  /** How many each filter cuts, and their probability. */
  cuts: Partial<Record<Filter, [number, number]>>;
  tempered: Float64Array;
  after: Float64Array;
}

/** The ranks drawn, and how often each. */
export interface Draws {
  order: number[];
  sums: Map<number, number>;
}

// ---- the tensors of a checkpoint ----

export interface CheckpointState {
  selected: string;
  opened: string[];
  text: string;
  asked: string[];
}

export type TensorBytes = [string, number];
export type Facts = [string, string][];

export interface CheckpointData {
  folder: string;
  whole: number;
  tensors: TensorBytes[];
  facts: Record<string, Facts>;
  parts: Record<string, number>;
}

export interface Histogram {
  counts: number[];
  edge: number;
  mean: number;
  std: number;
  outliers: number;
  not_finite: number;
}

export type CheckpointModel = Model<{
  state: CheckpointState;
  data: CheckpointData;
  histograms: Record<string, Histogram>;
}>;

/** Group -> its tensors. */
export type TensorTree = Map<string, TensorBytes[]>;

export interface TensorRow {
  name: string;
  depth: number;
  count: number;
  bytes: number;
}

// ---- generation ----

export interface StepperState {
  path: number[];
  at: number;
}

/** A token's id, its text and its probability. */
export type Offer = [number, string, number];

export interface StepperData {
  prompt: string[];
  /** What comes next after a path, by its ids. */
  visited: Record<string, Offer[]>;
  max_new_tokens: number;
  stop_ids: number[];
  layers: number;
  kv_heads: number;
  dim: number;
  token_bytes: number;
}

export type StepperModel = Model<{ state: StepperState; data: StepperData }>;

export interface StepView extends StepperState {
  data: StepperData;
  offers: Offer[] | undefined;
  ended: boolean;
  alone: boolean;
  full: boolean;
  tokens: string[];
  shades: number[];
  length: number;
  cached: number;
  open(id: number): boolean;
}

export interface StepActions {
  to(at: number): void;
  take(rank: number, burst?: boolean): void;
  add(): void;
  burst(): void;
  goOn(): void;
  back(): void;
  forward(): void;
  restart(): void;
}

// ---- a page that carries its model ----

export interface Engine {
  net: import("./engine/model.js").Model;
  tokenizer: import("./engine/tokenizer.js").Tokenizer;
  /** What a widget's `settings` in Python gives. */
  settings: any;
  model: Standalone;
}

/** What a page computes in the kernel's place: values of the widget by name. */
export interface LiveAnswers {
  prompt(text: string): Promise<{ data: object; state: object; [name: string]: object }>;
  /** After a choice, what the page lacks. */
  state?(): object | Promise<object>;
}

export interface PatternsRead extends Patterns {
  tokens: string[];
  factor: number;
  /** Head type -> a score for each head, layer by layer. */
  scores: Map<string, number[]>;
  /** The position where head `at` shows best that it is of a type. */
  exampleAt: (type: string, at: number) => number;
}
