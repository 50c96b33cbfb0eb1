/** A student's training with its teacher beside it, and the flow of what came of it. */
import type { ModelProto } from 'onnx-buf';
import { meanChanges } from '../../distillation/changes.js';
import { fitMaps } from '../../distillation/maps.js';
import { findDistillationMethod, type DistillationMethod } from '../../distillation/methods.js';
import { sideOf } from '../../distillation/side.js';
import type { FlowUnit } from '../../distillation/units.js';
import { FlowCompressError } from '../../errors.js';
import type { RunControl } from '../../progress.js';
import type { MachineCache } from '../../runtime/machine-cache.js';
import { traceShapes } from '../../runtime/trace.js';
import { openClassroom, type Classroom, type TeacherStudy } from './classroom.js';
import { aimOf, distillTask, type DistillTask } from './task.js';
import { objectiveOf, refuseMoved, type Objective } from '../train/objective.js';
import type { DistillOptions } from './options.js';
import { prepareModel } from '../prepare.js';
import type { RunClock } from '../run-info.js';
import { runTraining, type Trained } from '../train/run-training.js';
import type { OpenedTeacher } from './teacher-model.js';
import type { Workspace } from '../workspace.js';

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
  const task = distillTask(workspace, settings);
  let classroom: Classroom | undefined;
  try {
    const trained = await runTraining(
      {
        ...{ workspace, objective: objectiveFor(workspace, task, settings), clock, curves: undefined, cache },
        settings: { ...settings, loss: undefined },
        teach: async (base, { augment }) => {
          const student = { base: base.model, read: base.output };
          const about = { workspace, teacher, task, ...student, method, settings, study, control };
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

/** Labels, or what an output should be, where that is known; without it the answers of the teacher are all there is. */
function objectiveFor(workspace: Workspace, task: DistillTask, settings: DistillOptions): Objective {
  const { outputDims } = workspace;
  if (task.kind === 'classes' && task.labelled) return objectiveOf(workspace, { ...settings, loss: undefined });
  const { metric = 'loss', labelSmoothing, balance, data } = settings;
  const asked = [
    ...(metric === 'loss' ? [] : [`--metric ${metric}`]),
    ...(labelSmoothing > 0 ? ['--label-smoothing'] : []),
    ...(balance ? ['--balance'] : []),
  ];
  if (asked.length > 0)
    throw new FlowCompressError('bad-input', `${asked[0]!} needs labels.`, {
      node: data,
      hint: task.kind === 'classes' ? 'Leave the option out, or give labelled data.' : 'Leave the option out.',
    });
  const { answering } = task;
  const output = answering.kind === 'classes' ? answering.scores : answering.outputs[0]!;
  const dims = outputDims.get(output)!;
  const aim = task.kind === 'values' ? task.aim : undefined;
  if (aim?.kind === 'targets') refuseMoved(settings, output, dims);
  return {
    ...{ loss: task.kind === 'classes' ? 'kl' : 'relative', output, dims, weighted: false, metric: 'loss' },
    targets: (batch) => {
      if (aim) return { target: aimOf(aim, batch, dims) };
      throw new FlowCompressError('internal', 'There are no labels to learn from.');
    },
  };
}

/** Units of a model in the form that is measured, and their mean flowChange on CALIB. */
export async function measuredFlow(
  workspace: Workspace,
  model: ModelProto,
  settings: DistillOptions,
  control: RunControl,
): Promise<{ prepared: ModelProto; units: readonly FlowUnit[]; changes: (number | undefined)[] }> {
  const { engine, batch, feedsFor, working } = workspace;
  const { model: prepared } = await prepareModel(engine, model, feedsFor, { signal: control.signal });
  const shapes = await traceShapes(engine, prepared, feedsFor(1));
  const { units } = sideOf(prepared, shapes, distillTask(workspace, settings).answering);
  const { calib } = working;
  const request = { engine, model: prepared, shapes, units, batches: () => batch(calib), samples: calib.size };
  const changes = await meanChanges({ ...request, maps: await fitMaps(request, control) }, control);
  return { prepared, units, changes };
}
