"""The names of the strategies by target."""

from service.strategies import STRATEGIES

FOR_CLASSES = [name for name, strategy in STRATEGIES.items() if "class" in strategy.targets]
FOR_NUMBERS = [name for name, strategy in STRATEGIES.items() if "number" in strategy.targets]
