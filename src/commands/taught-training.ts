/** A student's training with its teacher beside it, and the flow of what came of it. */
import type { ModelProto } from 'onnx-buf';
import { meanChanges } from '../distillation/changes.js';
import { fitMaps } from '../distillation/maps.js';
import { findDistillationMethod, type DistillationMethod } from '../distillation/methods.js';
import { sideOf } from '../distillation/side.js';
import type { FlowUnit } from '../distillation/units.js';
import { FlowCompressError } from '../errors.js';
import type { RunControl } from '../progress.js';
import type { MachineCache } from '../runtime/machine-cache.js';
import { traceShapes } from '../runtime/trace.js';
import { openClassroom, type Classroom, type TeacherStudy } from './classroom.js';
import { objectiveOf, type Objective } from './objective.js';
import type { DistillOptions } from './options.js';
import { prepareModel } from './prepare.js';
import type { RunClock } from './run-info.js';
import { runTraining, type Trained } from './run-training.js';
import type { OpenedTeacher } from './teacher-model.js';
import type { Workspace } from './workspace.js';

export interface TaughtRequest {
  /** Of the student. */
  readonly workspace: Workspace;
  readonly teacher: OpenedTeacher;
  readonly settings: DistillOptions;
  readonly clock: RunClock;
  readonly cache: MachineCache | undefined;
  /** What was measured of the teacher before. */
  readonly study?: TeacherStudy;
}

export interface Taught {
  readonly trained: Trained;
  readonly classroom: Classroom;
  readonly method: DistillationMethod;
}

/** @throws FlowCompressError as `runTraining` and `openClassroom` */
export async function trainTaught(request: TaughtRequest, control: RunControl): Promise<Taught> {
  const { workspace, teacher, settings, clock, cache, study } = request;
  const method = findDistillationMethod(settings.method)!;
  let classroom: Classroom | undefined;
  try {
    const trained = await runTraining(
      {
        ...{ workspace, objective: objectiveFor(workspace, settings), clock, curves: undefined, cache },
        settings: { ...settings, loss: undefined },
        teach: async (base, { augment }) => {
          const student = { base: base.model, logits: base.output };
          const about = { workspace, teacher, ...student, method, settings, study, control };
          classroom = await clock.stage('prepare', () => openClassroom(about, augment.mixup > 0));
          return classroom.teaching;
        },
      },
      control,
    );
    return { trained, classroom: classroom!, method };
  } finally {
    await classroom?.close();
  }
}

/** Labels where there are some; without them the answers of the teacher are all there is. */
function objectiveFor(workspace: Workspace, settings: DistillOptions): Objective {
  const { working, head, outputDims } = workspace;
  if (working.train.labels) return objectiveOf(workspace, { ...settings, loss: undefined });
  const { metric = 'loss', labelSmoothing, balance, data } = settings;
  const asked = [
    ...(metric === 'loss' ? [] : [`--metric ${metric}`]),
    ...(labelSmoothing > 0 ? ['--label-smoothing'] : []),
    ...(balance ? ['--balance'] : []),
  ];
  if (asked.length > 0)
    throw new FlowCompressError('bad-input', `${asked[0]!} needs labels.`, {
      node: data,
      hint: 'Leave the option out, or give labelled data.',
    });
  return {
    ...{ loss: 'kl', output: head!.output, dims: outputDims.get(head!.output)!, weighted: false, metric: 'loss' },
    targets: () => {
      throw new FlowCompressError('internal', 'There are no labels to learn from.');
    },
  };
}

/** Units of a model in the form that is measured, and their mean flowChange on CALIB. */
export async function measuredFlow(
  { engine, batch, feedsFor, scores, working }: Workspace,
  model: ModelProto,
  control: RunControl,
): Promise<{ prepared: ModelProto; units: readonly FlowUnit[]; changes: (number | undefined)[] }> {
  const { model: prepared } = await prepareModel(engine, model, feedsFor, { signal: control.signal });
  const shapes = await traceShapes(engine, prepared, feedsFor(1));
  const { units } = sideOf(prepared, shapes, scores!);
  const { calib } = working;
  const request = { engine, model: prepared, shapes, units, batches: () => batch(calib), samples: calib.size };
  const changes = await meanChanges({ ...request, maps: await fitMaps(request, control) }, control);
  return { prepared, units, changes };
}
