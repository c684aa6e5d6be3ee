"""The command line.  Each command reads its arguments and calls one function elsewhere.

Rule: exit status 0 VALID, 1 INVALID, 2 UNKNOWN or could not run, 64 usage; with --json one JSON object on stdout and
nothing else there.  Knows nothing of how anything is done, and imports nothing before it is needed.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from seatrial.trial.model import BadTrial, Trial, parse_duration

USAGE_ERROR = 64
INTERRUPTED = 130

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else there.")]


def main() -> NoReturn:
    """Run the command in sys.argv and exit with its status."""
    sys.exit(run_arguments(sys.argv[1:]))


def run_arguments(arguments: list[str]) -> int:
    """Run one command line and return its exit status."""
    try:
        command = typer.main.get_command(command_line())
        result = command.main(args=arguments, prog_name="seatrial", standalone_mode=False)
    except typer.TyperException as error:  # commands return their status; only bad usage is raised
        return _complain(f"{error.format_message()}  (see `seatrial --help`)", USAGE_ERROR)
    except BadTrial as error:
        return _complain(str(error), USAGE_ERROR)
    except (typer.Abort, KeyboardInterrupt):
        result = INTERRUPTED
    if result == INTERRUPTED:  # which is also what typer makes of a Ctrl-C in a command, without a word
        return _complain("interrupted; everything that was started has been stopped", INTERRUPTED)
    return result if isinstance(result, int) else 0


def _complain(message: str, status: int) -> int:
    print(f"seatrial: {message}", file=sys.stderr)
    return status


def command_line() -> typer.Typer:
    """All commands, for `main` and for the reference."""
    app = typer.Typer(
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        help="Sea trials for Raft clusters: start a real cluster, break it on purpose, prove whether it kept its word.",
    )
    for function in (run, sim, up, check, report):
        app.command()(function)
    app.command(name="list")(catalogue)
    app.command()(members)
    # For `--help` only: the launcher takes these two before this module is imported.
    app.command(context_settings={"ignore_unknown_options": True})(serve)
    app.command(context_settings={"ignore_unknown_options": True})(proxy)
    return app


def run(
    trial_file: Annotated[Path | None, typer.Argument(help="A trial file; options override it.")] = None,
    *,
    system: Annotated[str | None, typer.Option(help="What to try: see `seatrial list systems`.")] = None,
    system_version: Annotated[str | None, typer.Option(help="Which version of the system.")] = None,
    etcd_version: Annotated[str | None, typer.Option(help="Short for --system-version with --system etcd.")] = None,
    nodes: Annotated[int | None, typer.Option(help="How many nodes.")] = None,
    workload: Annotated[str | None, typer.Option(help="Comma-separated: see `seatrial list workloads`.")] = None,
    read_from: Annotated[
        str | None, typer.Option(help="leader, or followers: where the workload log reads (leader).")
    ] = None,
    faults: Annotated[str | None, typer.Option(help="Comma-separated: see `seatrial list faults`; or all.")] = None,
    duration: Annotated[str | None, typer.Option(help="How long to break things, e.g. 30s or 2m.")] = None,
    seed: Annotated[int | None, typer.Option(help="Decides every random choice; printed when drawn.")] = None,
    env: Annotated[str | None, typer.Option(help="local, sim or netns: see `seatrial list environments`.")] = None,
    unavailability_max: Annotated[
        str | None, typer.Option(help="INVALID if no operation succeeds for longer while a majority is connected.")
    ] = None,
    option: Annotated[list[str] | None, typer.Option(help="KEY=VALUE for the system's driver; repeatable.")] = None,
    out: Annotated[Path | None, typer.Option(help="Run directory; a fresh one under runs/ by default.")] = None,
    json: Json = False,
) -> int:
    """Run a trial: a cluster, clients, faults, a verdict and a report."""
    from seatrial.trial.command import run_command

    if etcd_version is not None and system not in (None, "etcd"):
        raise BadTrial(f"--etcd-version goes with --system etcd, not with {system}")
    changes = {
        "system": system or ("etcd" if etcd_version is not None else None),
        "version": system_version or etcd_version,
        "nodes": nodes,
        "workloads": None if workload is None else _words(workload),
        "read_from": read_from,
        "faults": None if faults is None else _words(faults),
        "duration_s": None if duration is None else parse_duration(duration),
        "seed": seed,
        "environment": env,
        "unavailability_max_s": None if unavailability_max is None else parse_duration(unavailability_max),
        "options": None if option is None else dict(map(_key_and_value, option)),
    }
    base = Trial.load(trial_file) if trial_file is not None else None
    return run_command(base, {k: v for k, v in changes.items() if v is not None}, out=out, json=json)


def sim(
    case_file: Annotated[Path | None, typer.Argument(help="A case file: that one run, instead of drawn ones.")] = None,
    *,
    seeds: Annotated[int, typer.Option(help="How many cases to draw and run.")] = 1_000,
    seed: Annotated[int | None, typer.Option(help="Only the case of this seed.")] = None,
    first_seed: Annotated[int, typer.Option(help="Where the seeds begin.")] = 0,
    level: Annotated[str, typer.Option(help="full: the server as shipped; core: Raft alone, fastest.")] = "full",
    duration: Annotated[str | None, typer.Option(help="Of virtual time with faults, e.g. 60s (10s).")] = None,
    nodes: Annotated[int | None, typer.Option(help="How many nodes, instead of a drawn number.")] = None,
    jobs: Annotated[int, typer.Option(help="How many processes at a time.")] = 2,
    trace: Annotated[bool, typer.Option("--trace", help="Print the run line by line; needs one case.")] = False,
    shrink: Annotated[bool, typer.Option("--shrink", help="Find the smallest case that still fails.")] = False,
    save: Annotated[
        Path | None,
        typer.Option(
            help="Write the (shrunk) failing case into this directory; with --mutant, the page of mutants to this file."
        ),
    ] = None,
    mutant: Annotated[str | None, typer.Option(help="Plant this bug, or `all` of them, and hunt for it.")] = None,
    coverage: Annotated[
        bool, typer.Option("--coverage", help="INVALID if a named rare event of the code was never reached.")
    ] = False,
    json: Json = False,
) -> int:
    """Simulate clusters, faults and clients in virtual time: many seeds, or one, replayed exactly."""
    from seatrial.sim.command import Asked, BadCase, sim_command

    try:
        asked = Asked(
            case_file=case_file,
            seed=seed,
            seeds=seeds,
            first_seed=first_seed,
            level=level,  # type: ignore[arg-type]  # an unknown one is refused by name
            duration_s=None if duration is None else parse_duration(duration),
            nodes=nodes,
            jobs=jobs,
            trace=trace,
            shrink=shrink,
            save=save,
            mutant=mutant,
            coverage=coverage,
            json=json,
        )
        return sim_command(asked)
    except BadCase as error:
        raise BadTrial(str(error)) from error


def up(
    nodes: Annotated[int, typer.Option(help="How many nodes.")] = 3,
    directory: Annotated[
        Path | None, typer.Option(help="Keep the data here; without it, it is removed at the end.")
    ] = None,
    option: Annotated[list[str] | None, typer.Option(help="KEY=VALUE for the driver; repeatable.")] = None,
) -> int:
    """Start a cluster any Kafka client can use; it lives until Ctrl-C."""
    from seatrial.trial.up import up_command

    return up_command(nodes=nodes, directory=directory, options=dict(map(_key_and_value, option or [])))


def check(
    history: Annotated[Path, typer.Argument(help="A history.jsonl.")],
    *,
    model: Annotated[str, typer.Option(help="What it must be: see `seatrial list checkers`.")] = "kv",
    json: Json = False,
) -> int:
    """Check a stored history again."""
    from seatrial.trial.recheck import check_command

    return check_command(history, model=model, json=json)


def report(run_directory: Annotated[Path, typer.Argument(help="A run directory, finished or not.")]) -> int:
    """Write report.html of a run directory anew, and print its path."""
    from seatrial.trial.recheck import report_command

    return report_command(run_directory)


def catalogue(
    what: Annotated[str, typer.Argument(help="systems, faults, workloads, checkers or environments.")],
    *,
    json: Json = False,
) -> int:
    """List what there is, and what this machine lacks for it."""
    from seatrial.trial.catalogue import catalogue_command

    return catalogue_command(what, json=json)


def members(
    action: Annotated[str, typer.Argument(help="list, add, promote, remove, replace or move.")],
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            help="add NODE-ID HOST:RAFT-PORT; promote NODE-ID; remove NODE-ID; replace OLD-ID NEW-ID; "
            "move TOPIC/PARTITION."
        ),
    ] = None,
    *,
    http: Annotated[str, typer.Option(help="HTTP address of any member.")] = "http://127.0.0.1:9644",
    token: Annotated[str, typer.Option(help="Its --http-token.", envvar="SEATRIAL_HTTP_TOKEN")] = "",
    wait: Annotated[str | None, typer.Option(help="Wait until it is carried out, e.g. 30s.")] = None,
    learner: Annotated[bool, typer.Option("--learner", help="add: without a vote until it is promoted.")] = False,
    add: Annotated[str, typer.Option(help="move: node ids that get a replica, comma-separated.")] = "",
    remove: Annotated[str, typer.Option(help="move: node ids that give theirs up.")] = "",
    learners: Annotated[str, typer.Option(help="move: node ids that follow without a vote.")] = "",
    json: Json = False,
) -> int:
    """List or change the members of a running cluster of our own server, and where partitions are."""
    from seatrial.server.members_command import MembersOptions, members_command

    options = MembersOptions(
        http=http,
        token=token,
        wait_s=0.0 if wait is None else parse_duration(wait),
        learner=learner,
        add=_numbers("--add", add),
        remove=_numbers("--remove", remove),
        learners=_numbers("--learners", learners),
        json=json,
    )
    return members_command(action, arguments or [], options)


def serve() -> int:
    """One node of our own cluster (`seatrial serve --help` lists its options)."""
    raise AssertionError("the launcher takes `serve`")


def proxy() -> int:
    """The Toxiproxy-compatible proxy alone (`seatrial proxy --help` lists its options)."""
    raise AssertionError("the launcher takes `proxy`")


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _numbers(option: str, text: str) -> tuple[int, ...]:
    words = _words(text)
    if not all(word.isdigit() for word in words):
        raise BadTrial(f"{option} {text}: write node ids with commas between them, such as {option} 4,5")
    return tuple(map(int, words))


def _key_and_value(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise BadTrial(f"--option {text!r}: write KEY=VALUE")
    return key, value
