"""Examples: a story in requests with their replies, shown in openapi.yaml and at /docs, and executed by a test.

The story is about eight flowers with two measurements each. A model's numbers hold up to rounding; ids and times differ
from run to run.
"""

from service.http.contract.examples import changes, label_studio, loop, results, service, simulations, targets
from service.http.contract.examples.example import Example

STORY: tuple[Example, ...] = (
    *loop.EXAMPLES,
    *results.EXAMPLES,
    *changes.EXAMPLES,
    *simulations.EXAMPLES,
    *targets.EXAMPLES,
    *label_studio.EXAMPLES,
    *service.EXAMPLES,
)
"""The requests in the order in which they are sent."""
