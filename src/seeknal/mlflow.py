"""MLflow: from a run to the training set that it used. `TrainingSet.to_mlflow` logs one."""

from seeknal.featurestore.mlflow_dataset import TrainingSetDataset, TrainingSetSource, training_set

__all__ = ["TrainingSetDataset", "TrainingSetSource", "training_set"]
