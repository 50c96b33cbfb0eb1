/** Finds out what a folder of images is: class folders, splits of class folders, or images without classes. */
import type { Dirent } from 'node:fs';
import { readdir, stat } from 'node:fs/promises';
import { extname, join, relative } from 'node:path';
import { FlowCompressError, messageOf } from '../../errors.js';

const EXTENSIONS: ReadonlySet<string> = new Set(['.png', '.jpg', '.jpeg', '.webp']);

export type SplitName = 'train' | 'val' | 'test';

const SPLITS: Readonly<Record<string, SplitName>> = {
  train: 'train',
  training: 'train',
  val: 'val',
  valid: 'val',
  validation: 'val',
  test: 'test',
  testing: 'test',
};

/** Image files, and the class of each; `labels` and `classNames` are absent for a folder without class folders. */
export interface ImageList {
  readonly files: readonly string[];
  readonly labels?: Int32Array;
  readonly classNames?: readonly string[];
}

export interface FolderScan {
  readonly all?: ImageList;
  readonly splits: Partial<Record<SplitName, ImageList>>;
  readonly notes: readonly string[];
}

/** A folder's own images and sub-folders, both sorted by name; hidden entries and other files are left out. */
interface Listing {
  readonly images: readonly string[];
  readonly folders: readonly string[];
}

/**
 * Reads the structure of an image folder without opening any image.
 *
 * Sub-folders named train, val (valid, validation) and test are splits, unless other sub-folders hold images too: then they
 * are classes with those names. Images may lie deeper inside a class folder.
 * @throws FlowCompressError `bad-input` when there are no images, or the splits disagree about the classes
 */
export async function scanImageFolder(root: string): Promise<FolderScan> {
  const skipped: string[] = [];
  const skippedAtTop: string[] = [];
  const top = await list(root, skippedAtTop);
  const splitNames = top.folders.filter((name) => SPLITS[name.toLowerCase()] !== undefined);
  const others = top.folders.filter((name) => !splitNames.includes(name));
  const otherImages = await Promise.all(others.map((name) => collect(join(root, name), [])));
  const notes: string[] = [];

  if (splitNames.length > 0 && otherImages.every((images) => images.length === 0)) {
    const splits: Partial<Record<SplitName, ImageList>> = {};
    for (const name of splitNames) {
      const split = SPLITS[name.toLowerCase()];
      if (splits[split]) {
        throw new FlowCompressError('bad-input', `${root} has two folders for ${split}: ${splitNames.join(', ')}.`, {
          node: root,
          hint: 'Keep one of them.',
        });
      }
      splits[split] = await scanClasses(join(root, name), skipped, notes);
    }
    if (top.images.length > 0)
      notes.push(
        `${top.images.length} images directly in ${root} are left out: its splits are ${splitNames.join(', ')}.`,
      );
    return {
      splits: agreeOnClasses(root, splits),
      notes: [...notes, ...noteSkipped(root, [...skippedAtTop, ...skipped])],
    };
  }
  const all = await scanClasses(root, skipped, notes);
  return { all, splits: {}, notes: [...notes, ...noteSkipped(root, skipped)] };
}

async function scanClasses(folder: string, skipped: string[], notes: string[]): Promise<ImageList> {
  const { images, folders } = await list(folder, skipped);
  const classNames = sortClasses(folders);
  const perClass: string[][] = [];
  for (const name of classNames) perClass.push(await collect(join(folder, name), skipped));
  const found = perClass.reduce((sum, files) => sum + files.length, 0);
  if (found === 0 && images.length === 0) {
    throw new FlowCompressError('bad-input', `${folder} holds no PNG, JPEG or WebP images.`, {
      node: folder,
      hint: 'Give a folder with one sub-folder of images per class, an .npz file, or IDX files.',
    });
  }
  if (found === 0) return { files: images.map((name) => join(folder, name)) };
  if (images.length > 0)
    notes.push(`${images.length} images directly in ${folder} are left out: its classes are its sub-folders.`);
  const empty = classNames.filter((_, i) => perClass[i].length === 0).map((name) => join(folder, name));
  if (empty.length > 0) {
    throw new FlowCompressError(
      'bad-input',
      `Class folder ${empty[0]} holds no PNG, JPEG or WebP images${empty.length > 1 ? ` (${empty.length} such folders)` : ''}.`,
      {
        node: empty[0],
        hint: 'Put the images of the class into it, or remove the folder if the model has no such class.',
      },
    );
  }
  return {
    files: perClass.flat(),
    labels: Int32Array.from(perClass.flatMap((files, label) => files.map(() => label))),
    classNames,
  };
}

/** Classes in the order of their labels: by name, or by value where every name is a whole number. */
function sortClasses(names: readonly string[]): string[] {
  const numbers = names.every((name) => /^\d+$/.test(name));
  return [...names].sort((a, b) => (numbers && Number(a) !== Number(b) ? Number(a) - Number(b) : a < b ? -1 : 1));
}

/** Gives all splits the labels of one class list: that of `train`, or of the first split there is. */
function agreeOnClasses(
  root: string,
  splits: Partial<Record<SplitName, ImageList>>,
): Partial<Record<SplitName, ImageList>> {
  const lists = Object.entries(splits);
  const [leader, { classNames }] = splits.train ? (['train', splits.train] as const) : lists[0];
  const result: Partial<Record<SplitName, ImageList>> = {};
  for (const [name, images] of lists) {
    const split = SPLITS[name];
    if ((images.classNames === undefined) !== (classNames === undefined)) {
      throw new FlowCompressError(
        'bad-input',
        `In ${root}, ${classNames ? name : leader} has no class folders but ${classNames ? leader : name} has.`,
        {
          node: root,
          hint: 'Put the images of every split into class folders, or give the splits as separate --data and --test.',
        },
      );
    }
    if (!classNames || !images.classNames || !images.labels) {
      result[split] = images;
      continue;
    }
    const strangers = images.classNames.filter((each) => !classNames.includes(each));
    if (strangers.length > 0) {
      throw new FlowCompressError(
        'bad-input',
        `Class ${strangers[0]} of ${join(root, name)} is not a class of ${leader} (${strangers.length} such).`,
        {
          node: join(root, name),
          hint: 'Every split must use the class folders of the training split.',
        },
      );
    }
    const { classNames: own } = images;
    result[split] = {
      files: images.files,
      labels: images.labels.map((label) => classNames.indexOf(own[label])),
      classNames,
    };
  }
  return result;
}

async function list(folder: string, skipped: string[]): Promise<Listing> {
  let entries: Dirent[];
  try {
    entries = await readdir(folder, { withFileTypes: true });
  } catch (error) {
    throw new FlowCompressError('io', `${folder} cannot be listed: ${messageOf(error)}`, {
      node: folder,
      cause: error,
    });
  }
  const images: string[] = [];
  const folders: string[] = [];
  for (const entry of entries) {
    if (entry.name.startsWith('.') || entry.name === '__MACOSX') continue;
    const kind = entry.isSymbolicLink() ? await stat(join(folder, entry.name)).catch(() => undefined) : entry;
    if (kind?.isDirectory()) folders.push(entry.name);
    else if (kind?.isFile() && EXTENSIONS.has(extname(entry.name).toLowerCase())) images.push(entry.name);
    else skipped.push(join(folder, entry.name));
  }
  return { images: images.sort(), folders: folders.sort() };
}

const MAX_DEPTH = 16;

/** All images below a folder, in a fixed order. The depth is bounded, for links that lead back up. */
async function collect(folder: string, skipped: string[], depth = 0): Promise<string[]> {
  if (depth > MAX_DEPTH) return [];
  const { images, folders } = await list(folder, skipped);
  const files = images.map((name) => join(folder, name));
  for (const name of folders) files.push(...(await collect(join(folder, name), skipped, depth + 1)));
  return files;
}

function noteSkipped(root: string, skipped: readonly string[]): string[] {
  if (skipped.length === 0) return [];
  const shown = skipped
    .slice(0, 3)
    .map((path) => relative(root, path))
    .join(', ');
  return [
    `${skipped.length} file${skipped.length === 1 ? '' : 's'} in ${root} that ${skipped.length === 1 ? 'is' : 'are'} not PNG, JPEG or WebP left out: ${shown}${skipped.length > 3 ? ', ...' : ''}.`,
  ];
}
