"""Inside the environment of the rivals: set one up, then time its calls as they are asked for.

    python -m deploy.bench.child MODULE FUNCTION ARGUMENTS(JSON)

Says the facts (JSON) in one line once everything is warm, then for each line with the name of a
call its seconds.
"""

import importlib
import json
import os
import sys

from deploy.bench.timing import timed


def main() -> None:
    module, function, arguments = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries that print must not answer for us
    calls, facts = getattr(importlib.import_module(module), function)(**json.loads(arguments))
    for call in calls.values():
        call()
    print(json.dumps(facts), file=answers, flush=True)
    for line in sys.stdin:
        print(timed(calls[line.strip()])(), file=answers, flush=True)


if __name__ == "__main__":
    main()
