"""What a run's artifacts, tags and metrics are called, once for all who write or read them.

A name is part of every run already in a store: change one and the runs made before it lose what it
names. Paths of files are relative to the run's artifacts; those under `checkpoints/` and `reports/`
are also the paths of the pipeline's own outputs.
"""

from __future__ import annotations

# Checkpoints, as files of any folder.
BEST_NAME = "best_stab_gan.pth"
FINAL_NAME = "final_stab_gan.pth"

# Artifacts.
CHECKPOINTS_FOLDER = "checkpoints"
DATA_FOLDER = "data"
PLOTS_FOLDER = "plots"
REPORTS_FOLDER = "reports"
VIDEOS_FOLDER = "videos"
BEST_FILE = f"{CHECKPOINTS_FOLDER}/{BEST_NAME}"
FINAL_FILE = f"{CHECKPOINTS_FOLDER}/{FINAL_NAME}"
METRICS_FILE = f"{REPORTS_FOLDER}/metrics.json"
MEASURES_FILE = f"{REPORTS_FOLDER}/measures.json"
PER_VIDEO_FILE = f"{REPORTS_FOLDER}/per_video.csv"
PARAMS_FILE = "params/params.yaml"
DIFF_FILE = "code/uncommitted.diff"
PACKAGES_FILE = "environment/packages.txt"
LOCK_FILE = "dvc/dvc.lock"
# Among the files of a logged model, not of the run.
MODEL_CHECKPOINT_FILE = f"extra_files/{BEST_NAME}"

# Tags: where the run comes from, ...
COMMIT_TAG = "mlflow.source.git.commit"
BRANCH_TAG = "mlflow.source.git.branch"
DIRTY_TAG = "mlflow.source.git.dirty"
SOURCE_TYPE_TAG = "mlflow.source.type"
SOURCE_NAME_TAG = "mlflow.source.name"
USER_TAG = "mlflow.user"
NAME_TAG = "mlflow.runName"
# Of a run or an experiment: what the UI shows of it first, as Markdown.
NOTE_TAG = "mlflow.note.content"
PYTHON_TAG = "python"
PLATFORM_TAG = "platform"
PROCESSOR_TAG = "processor"
GPU_TAG = "gpu"
EXPERIMENT_TAG = "dvc.experiment"
CHANGED_PARAMS_TAG = "params.changed"
RERUN_OF_TAG = "deepstab.rerun_of"
TRAINED_IN_TAG = "deepstab.trained_in"
TRAINING_TAG = "deepstab.training"
# ... what it learned from, and what came out.
DATA_SOURCE_TAG = "data.source"
DATA_GENERATED_TAG = "data.generated"
PROCESSES_TAG = "train.processes"
EPOCH_TAG = "checkpoint.epoch"
GENERATOR_TAG = "checkpoint.generator_sha256"
FINAL_GENERATOR_TAG = "checkpoint.final_generator_sha256"
# What the validation videos are as filmed, by the name of the measure: the same in every epoch.
INPUT_PREFIX = "input."
# Of a logged model, not of the run.
SAVED_AS_TAG = "deepstab.saved_as"

# What a data set was used for.
CONTEXT_TAG = "mlflow.data.context"
TRAINING_DATA = "training"
VALIDATION_DATA = "validation"
TEST_DATA = "test"

# Metrics: a prefix, then the name of the measure. Validation figures have no prefix.
STEP_PREFIX = "step/"
BEST_PREFIX = "best/"
SYSTEM_PREFIX = "system/"
DURATION_PREFIX = "duration_s/"
TRAIN_DURATION = DURATION_PREFIX + "train"
TEST_PREFIX = "test/"  # then the row: input, stabilized, ...
STABILIZED_PREFIX = f"{TEST_PREFIX}stabilized/"
