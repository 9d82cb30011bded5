"""MLflow: find the training set of a run. `TrainingSet.to_mlflow` logs it."""

from seeknal.featurestore.mlflow_dataset import TrainingSetDataset, TrainingSetSource, training_set

__all__ = ["TrainingSetDataset", "TrainingSetSource", "training_set"]
