/**
 * Hot loops of rounding and pruning, in AssemblyScript, compiled to WebAssembly SIMD by build.js. Results depend on no machine: vector
 * lanes are summed in a fixed order, and nothing is fused. Addresses are byte offsets that the caller lays out.
 */
export { choleskyFactor } from './cholesky';
export { roundBlock, symmetricProduct } from './round';
export { refineBlock } from './refine';
export { removeWeights } from './surgeon';
