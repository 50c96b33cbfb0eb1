/** Recognises files that are often given where an ONNX model is expected, to say so in the error. */

/** What a file looks like and what its owner can do. */
export interface FileKind {
  readonly looksLike: string;
  readonly hint: string;
}

const EXPORT = 'Export the model to ONNX first, for example with torch.onnx.export, tf2onnx or optimum-cli.';

interface Signature extends FileKind {
  readonly offset: number;
  /** Latin-1 characters of the leading bytes. */
  readonly magic: string;
}

const signatures: readonly Signature[] = [
  {
    offset: 0,
    magic: 'PK\x03\x04',
    looksLike: 'a ZIP archive (perhaps a PyTorch checkpoint or a .npz file)',
    hint: `If a model.onnx is inside, unpack it. ${EXPORT}`,
  },
  { offset: 0, magic: '\x1f\x8b', looksLike: 'a gzip file', hint: 'Unpack it with gunzip and give the file inside.' },
  { offset: 0, magic: '\x28\xb5\x2f\xfd', looksLike: 'a zstd file', hint: 'Unpack it and give the file inside.' },
  { offset: 0, magic: '\x89PNG', looksLike: 'a PNG image', hint: 'Give the .onnx file; images are given with --data.' },
  {
    offset: 0,
    magic: '\xff\xd8\xff',
    looksLike: 'a JPEG image',
    hint: 'Give the .onnx file; images are given with --data.',
  },
  { offset: 0, magic: '\x89HDF', looksLike: 'an HDF5 file (perhaps a Keras model)', hint: EXPORT },
  {
    offset: 0,
    magic: '\x93NUMPY',
    looksLike: 'a NumPy array',
    hint: 'Give the .onnx file; data are given with --data.',
  },
  { offset: 0, magic: 'GGUF', looksLike: 'a GGUF model', hint: EXPORT },
  { offset: 4, magic: 'TFL3', looksLike: 'a TensorFlow Lite model', hint: EXPORT },
  {
    offset: 4,
    magic: 'ORTM',
    looksLike: 'a model in the ORT format of ONNX Runtime',
    hint: 'Give the .onnx file it was made from.',
  },
  { offset: 8, magic: '{"', looksLike: 'a safetensors file', hint: EXPORT },
  { offset: 0, magic: '\x80\x02', looksLike: 'a Python pickle (perhaps a PyTorch checkpoint)', hint: EXPORT },
  { offset: 0, magic: '\x80\x03', looksLike: 'a Python pickle', hint: EXPORT },
  { offset: 0, magic: '\x80\x04', looksLike: 'a Python pickle', hint: EXPORT },
  { offset: 0, magic: '\x80\x05', looksLike: 'a Python pickle', hint: EXPORT },
  { offset: 0, magic: '%PDF', looksLike: 'a PDF document', hint: 'Give the .onnx file.' },
];

function textKind(text: string): FileKind {
  const start = text.trimStart().slice(0, 200).toLowerCase();
  if (start.startsWith('version https://git-lfs')) {
    return {
      looksLike: 'a Git LFS pointer, not the model itself',
      hint: 'Fetch the real file with "git lfs pull", or download it again.',
    };
  }
  if (start.startsWith('<!doctype html') || start.startsWith('<html')) {
    return {
      looksLike: 'a web page',
      hint: 'The download saved a page instead of the file; use the direct (raw) link.',
    };
  }
  if (start.startsWith('<?xml')) return { looksLike: 'an XML file', hint: EXPORT };
  if (start.startsWith('{') || start.startsWith('['))
    return { looksLike: 'a JSON file', hint: 'Give the .onnx file beside it.' };
  return { looksLike: 'a text file', hint: 'Give the .onnx file.' };
}

/** What the file looks like, judged by its first bytes; undefined when nothing is recognised. */
export function recogniseFile(bytes: Uint8Array): FileKind | undefined {
  const head = bytes.subarray(0, 512);
  const latin1 = String.fromCharCode(...head);
  const match = signatures.find(({ offset, magic }) => latin1.startsWith(magic, offset));
  if (match) return match;
  if (head.length > 0 && head.every((byte) => byte === 0)) {
    return { looksLike: 'a file of zeros', hint: 'The download or copy was interrupted; fetch the file again.' };
  }
  const printable = head.every((byte) => byte >= 0x20 || byte === 9 || byte === 10 || byte === 13);
  if (!printable || head.length === 0) return undefined;
  try {
    // A cut in the middle of a character is not an error of the text.
    return textKind(new TextDecoder('utf-8', { fatal: true }).decode(head, { stream: true }));
  } catch {
    return undefined;
  }
}
