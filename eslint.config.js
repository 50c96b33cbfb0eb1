import eslint from '@eslint/js';
import tseslint from 'typescript-eslint';

/** Modules that only `src/node/`, the command line and the scripts may import: the rest of the library also runs in a browser. */
const nodeOnly = {
  group: ['node:*', 'onnxruntime-node', 'sharp', 'yauzl', '**/node/*.js'],
  message: 'Only src/node, src/experiments, src/commands, src/cli and src/index.ts may use the Node platform.',
};

export default tseslint.config(
  {
    ignores: [
      'dist',
      'node_modules',
      'demo/data',
      'demo/out',
      'bench/out',
      'coverage',
      'kernels/*.ts',
      'src/linalg/generated',
    ],
  },
  eslint.configs.recommended,
  ...tseslint.configs.strict,
  {
    rules: {
      '@typescript-eslint/no-non-null-assertion': 'off',
      '@typescript-eslint/no-unused-vars': ['error', { argsIgnorePattern: '^_' }],
      '@typescript-eslint/consistent-type-imports': 'error',
      'no-console': 'error',
    },
  },
  {
    files: ['src/**/*.ts'],
    ignores: [
      'src/node/**',
      'src/cli/**',
      'src/commands/**',
      'src/experiments/**',
      'src/index.ts',
      'src/testing/**',
      'src/**/*.test.ts',
    ],
    rules: { 'no-restricted-imports': ['error', { patterns: [nodeOnly] }] },
  },
  { files: ['bench/**', 'demo/**', 'examples/**', 'src/cli/**', '.ci/**'], rules: { 'no-console': 'off' } },
  { files: ['**/*.js'], languageOptions: { globals: { process: 'readonly', console: 'readonly', URL: 'readonly' } } },
);
