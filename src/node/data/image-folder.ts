/** Folders of images as datasets: images are decoded when they are read, several at a time. */
import type { Batch, Dataset, OpenedData } from '../../data/dataset.js';
import { planImageInput } from '../../data/image-input.js';
import type { PreprocessOptions } from '../../data/preprocess.js';
import { FlowCompressError } from '../../errors.js';
import type { ValueSignature } from '../../runtime/engine.js';
import { scanImageFolder, type ImageList } from './folder-scan.js';
import { decodeImage } from './image-file.js';
import { mapLimited } from './map-limited.js';

const DECODES_AT_ONCE = 8;

/**
 * Opens class folders of PNG, JPEG and WebP images, with optional train, val and test folders above them.
 * @throws FlowCompressError `bad-input` when there are no images or the model's input does not take any; a file that cannot
 * be decoded is named when it is read
 */
export async function openImageFolder(
  root: string,
  inputs: readonly ValueSignature[],
  options: PreprocessOptions,
): Promise<OpenedData> {
  const { all, splits, notes } = await scanImageFolder(root);
  const open = (images: ImageList | undefined, name: string): Dataset | undefined =>
    images && openImages(images, name, inputs, options);
  const datasets = {
    all: open(all, root),
    train: open(splits.train, `${root} train`),
    val: open(splits.val, `${root} val`),
    test: open(splits.test, `${root} test`),
  };
  const present = Object.fromEntries(Object.entries(datasets).filter(([, dataset]) => dataset !== undefined));
  return { kind: 'images', ...present, notes, close: async () => undefined };
}

function openImages(
  { files, labels, classNames }: ImageList,
  source: string,
  inputs: readonly ValueSignature[],
  options: PreprocessOptions,
): Dataset {
  if (inputs.length !== 1) {
    throw new FlowCompressError(
      'bad-input',
      `${source} gives one input; the model has ${inputs.length}: ${inputs.map((input) => input.name).join(', ')}.`,
      {
        node: source,
        hint: 'Give an .npz file with one array per input.',
      },
    );
  }
  const [input] = inputs;
  const plan = planImageInput(input, options);
  return {
    source,
    size: files.length,
    ...(labels && { labels }),
    ...(classNames && { classNames }),
    async read(indices): Promise<Batch> {
      const tensor = plan.create(indices.length);
      await mapLimited(Array.from(indices), DECODES_AT_ONCE, async (index, slot) => {
        const path = files[index];
        if (path === undefined)
          throw new FlowCompressError(
            'internal',
            `Sample ${index} is outside the ${files.length} images of ${source}.`,
            { node: source },
          );
        plan.put(await decodeImage(path), tensor, slot);
      });
      return {
        feeds: { [input.name]: tensor },
        ...(labels && { labels: Int32Array.from(indices, (index) => labels[index]) }),
        size: indices.length,
      };
    },
    close: async () => undefined,
  };
}
