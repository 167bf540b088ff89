"""
Tabu Search Manager for Hyperparameter Optimization
====================================================

This module implements a tabu-search mechanism which prevents the outer loop from
re-visiting recently explored regions of the hyperparameter space.

Key ideas:
    1. Maintain a FIFO tabu list of discretised configurations
    2. Reject proposals which fall within a tabu region
    3. Aspiration criterion: accept tabu moves when they are predicted to improve
"""

from __future__ import annotations

import logging
import math
import random
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Deque, Dict, List, Optional, Tuple

logger = logging.getLogger(__name__)


@dataclass
class TabuConfig:
    """Configuration for the tabu search."""

    tenure: int = 8
    resolution: int = 10
    aspiration: float = 0.02
    log_scale_params: List[str] = field(default_factory=lambda: ["EMBEDDING_LR", "MATRIX_LR"])


class TabuSearchManager:
    """Manages the tabu list."""

    def __init__(self, config: Optional[TabuConfig] = None) -> None:
        self.config = config or TabuConfig()
        self.tabu_list: Deque[Tuple[str, int]] = deque(maxlen=self.config.tenure)
        self.best_metric: float = float("inf")

    def _bucket(self, param: str, value: Any) -> Tuple[str, int]:
        if isinstance(value, (int, float)) and value > 0 and param in self.config.log_scale_params:
            return param, int(math.log10(value) * self.config.resolution)
        return param, hash(value) % 1000

    def is_tabu(self, changes: Dict[str, Any]) -> bool:
        return any(self._bucket(k, v) in self.tabu_list for k, v in changes.items())

    def record(self, changes: Dict[str, Any], metric: float) -> None:
        for k, v in changes.items():
            self.tabu_list.append(self._bucket(k, v))
        if metric < self.best_metric:
            logger.info("new best %.4f", metric)
            self.best_metric = metric

    def filter_proposals(self, proposals: List[Dict[str, Any]]) -> List[Dict[str, Any]]:
        allowed = [p for p in proposals if not self.is_tabu(p)]
        return allowed or [random.choice(proposals)]
