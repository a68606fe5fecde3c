"""All tests compute on one thread: results do not depend on the machine, nor timings on company."""

from __future__ import annotations

import cv2
import torch

torch.set_num_threads(1)
cv2.setNumThreads(1)
