/**
 * Switches off the telemetry of ONNX Runtime, which would leave files in the temporary and cache folders and report
 * every session over the network. It is read once, when the library is loaded: import this before `onnxruntime-node`.
 * Who wants it sets ORT_DISABLE_TELEMETRY=0.
 */
process.env['ORT_DISABLE_TELEMETRY'] ??= '1';
