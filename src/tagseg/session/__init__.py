"""One run from data to report: inputs, training, scores, report, export, prediction."""
