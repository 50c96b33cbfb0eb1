/** Decodes PNG, JPEG and WebP files to 8-bit pixels, as Pillow's convert('RGB') gives them. */
import sharp from 'sharp';
import type { Pixels } from '../../data/resample.js';
import { FlowCompressError, messageOf } from '../../errors.js';

/**
 * The pixels of an image file: 1 channel for gray images, 3 for all others. Colour profiles and the EXIF orientation are not
 * applied and transparency is dropped, which is what the training pipelines of the field do.
 * @throws FlowCompressError `bad-input` naming the file when it cannot be decoded
 */
export async function decodeImage(path: string): Promise<Pixels> {
  try {
    const { data, info } = await sharp(path, { ignoreIcc: true, failOn: 'error' })
      .removeAlpha()
      .raw({ depth: 'uchar' })
      .toBuffer({ resolveWithObject: true });
    return { data, height: info.height, width: info.width, channels: info.channels };
  } catch (error) {
    throw new FlowCompressError(
      'bad-input',
      `${path} cannot be decoded as an image: ${messageOf(error).split('\n')[0].replace(/:\s*$/, '')}`,
      {
        node: path,
        hint: 'Replace or remove this file.',
        cause: error,
      },
    );
  }
}
