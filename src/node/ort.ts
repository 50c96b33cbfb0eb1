/** onnxruntime-node as everything here imports it: loaded after its telemetry was switched off. */
import './quiet-engine.js';
export * from 'onnxruntime-node';
