"""The program inside: load main.py, call main(), say what came of it.

It runs on whatever interpreter the code asked for, so it uses the standard library of Python 3.9 and nothing of
Leadline. All that it says and is told are lines of JSON over one socket, which it is born with. First it is told what
to do: until then nothing of the code has been loaded. From then on the process is the code's, and what it says over
the socket is worth no more than the code itself.

A second socket is the code's own, to ask the daemon by. Whoever knows how finds it in the module `leadline_run`, which
is made here and in no file.
"""

import inspect
import json
import os
import resource
import site
import socket
import sys
import traceback
from types import ModuleType
from typing import Any


def main() -> None:
    """Do what is said over the socket whose number is the second argument.

    The first is that of the code's own socket, and further ones are the code's.
    """
    questions, channel = (_socket(number) for number in sys.argv[1:3])
    channel.sendall(b"{}\n")
    with channel.makefile("rb") as lines:
        text = lines.readline()
    if not text:
        sys.exit(1)  # nobody supervises it any more
    told = json.loads(text)
    for name, value in told["limits"].items():
        resource.setrlimit(getattr(resource, name), (value, value))
    sys.argv = [told["code"] + "/main.py", *sys.argv[3:]]
    sys.path[0] = told["code"]  # where this program is
    if told["packages"]:
        sys.path.insert(1, told["packages"])
        site.addsitedir(told["packages"])
    sys.path.insert(1, told["modules"])
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True, errors="backslashreplace")  # type: ignore[union-attr]
    run = ModuleType("leadline_run", "How a run reaches whoever runs it.")
    run.questions, run.event = questions, told["event"]  # type: ignore[attr-defined]
    sys.modules[run.__name__] = run
    said: dict[str, Any]
    try:
        said = {"returned": _kept(_call(told["event"]), told["result_bytes_max"])}
    except SystemExit:
        raise
    except BaseException as error:  # noqa: BLE001  whatever ends the code
        said = {
            "raised": _story(error, told["traceback_characters_max"]),
            "out_of_memory": isinstance(error, MemoryError),
        }
    channel.sendall(json.dumps(said).encode() + b"\n")
    if "raised" in said:
        sys.exit(1)


def _socket(number: str) -> socket.socket:
    os.set_inheritable(int(number), False)
    return socket.socket(fileno=int(number))


def _call(event: Any) -> Any:
    import main as module  # type: ignore[import-not-found]

    assert isinstance(module, ModuleType)
    return module.main(event) if _takes_event(module.main) else module.main()


def _takes_event(function: Any) -> bool:
    kinds = (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        inspect.Parameter.VAR_POSITIONAL,
    )
    return any(each.kind in kinds for each in inspect.signature(function).parameters.values())


def _kept(value: Any, most: int) -> dict[str, Any]:
    """A result as it is handed on: its JSON, or why there is none."""
    try:
        text = json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        return {"unkept": f"it is no JSON: {error}"[:500]}
    if len(text) > most:
        return {"unkept": f"it is larger than {most} bytes"}
    return {"json": text}


def _story(error: BaseException, most: int) -> str:
    """The traceback, from the code's own first line on."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    return "".join(traceback.format_exception(type(error), error, trace))[-most:]


if __name__ == "__main__":
    main()
