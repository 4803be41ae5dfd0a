#!/usr/bin/env python3
"""Follows a page as its reader would: copies its commands into a shell, one after the other.

  follow.py PAGE.md SECTION... [--replace FROM=TO]... [-- SHELL...]

Commands are the lines of ```console blocks below those headings that begin with `$ ` or `# `; one that ends in a
backslash goes on. All run in one shell (`bash`, or SHELL..., which reads commands from its standard input), each
without input. The first that fails ends it, and so does one that does not say what the page says: the lines below
a command must be lines of its output, in that order, where `…` stands for anything, a number with a point for any
such number, and blanks for any others. A command may take LIMIT seconds. --replace exchanges a text of the page
before that. The last line is `followed N commands`.
"""

import codecs
import os
import re
import selectors
import signal
import subprocess
import sys
import time

LIMIT = 1500


def sections(page, wanted):
    """Blocks of commands below each heading, as lists of lines, in the page's order."""
    found = {name: [] for name in wanted}
    heading, fence = None, None
    with open(page, encoding="utf-8") as lines:
        for line in lines.read().split("\n"):
            if fence is not None:
                if line.startswith("```"):
                    fence = None
                else:
                    fence.append(line)
            elif line.startswith("```"):
                fence = []
                # Those of another language are no commands, and what is in them no heading.
                if line == "```console" and heading in found:
                    found[heading].append(fence)
            elif re.match(r"#+ ", line):
                heading = line.lstrip("#").strip()
    for name, blocks in found.items():
        if not blocks:
            sys.exit(f"follow: {page}: no commands below {name!r}")
    return [block for name in wanted for block in found[name]]


def commands(block):
    """Pairs of a command and the lines that it is to say."""
    pairs, goes_on = [], False
    for line in block:
        if goes_on:
            pairs[-1][0] += "\n" + line
        elif line.startswith(("$ ", "# ")):
            pairs.append([line[2:], []])
        elif pairs and line.strip():
            pairs[-1][1].append(line)
        goes_on = line.endswith("\\")
    return pairs


def pattern(line):
    def of(part):
        if part == "…":
            return ".*"
        if part.isspace():
            return r"\s+"
        return r"\d+\.\d+" if re.fullmatch(r"\d+\.\d+", part) else re.escape(part)

    return re.compile("".join(of(part) for part in re.split(r"(…|\d+\.\d+|\s+)", line.strip()) if part))


def lacks(output, expected):
    """The first line that is not there."""
    said = iter(output.split("\n"))
    for line in expected:
        wanted = pattern(line)
        if not any(wanted.fullmatch(candidate.strip()) for candidate in said):
            return line
    return None


class Shell:
    def __init__(self, program):
        self.process = subprocess.Popen(
            program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
        self.mark = f"follow-{os.getpid()}-{time.monotonic_ns()}"

    def run(self, command):
        """What it says, and its status; None if it does not end, or the shell does."""
        # Quoted, so that the shell reads all of it before it runs any.
        quoted = "'" + command.replace("'", "'\\''") + "'"
        line = f"eval {quoted} </dev/null; printf '\\n%s %s\\n' {self.mark} $?\n"
        try:
            self.process.stdin.write(line.encode())
            self.process.stdin.flush()
        except BrokenPipeError:
            return "", None
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        text, end = "", time.monotonic() + LIMIT
        with selectors.DefaultSelector() as ready:
            ready.register(self.process.stdout, selectors.EVENT_READ)
            while time.monotonic() < end:
                if not ready.select(timeout=1):
                    continue
                more = os.read(self.process.stdout.fileno(), 65536)
                if not more:
                    break
                shown = decoder.decode(more)
                sys.stdout.write(shown.replace(self.mark, "exit status"))
                sys.stdout.flush()
                text += shown
                if done := re.search(rf"\n{self.mark} (\d+)\n", text):
                    return text[:done.start()], int(done.group(1))
        return text, None

    def end(self):
        """Also of what commands have left in the background."""
        try:
            self.process.stdin.close()
            self.process.wait(timeout=10)
        except (BrokenPipeError, subprocess.TimeoutExpired):
            pass
        for signal_number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.process.pid, signal_number)
            except ProcessLookupError:
                break
            try:
                self.process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                pass
        self.process.wait()


def main(arguments):
    program = ["bash"]
    if "--" in arguments:
        at = arguments.index("--")
        arguments, program = arguments[:at], arguments[at + 1:]
    names, replaced = [], []
    while arguments:
        argument = arguments.pop(0)
        if argument == "--replace" and arguments:
            replaced.append(arguments.pop(0).split("=", 1))
        else:
            names.append(argument)
    if len(names) < 2 or not program or any(len(pair) != 2 for pair in replaced):
        sys.exit(__doc__)
    page, wanted = names[0], names[1:]
    shell, count = Shell(program), 0
    try:
        for command, expected in (pair for block in sections(page, wanted) for pair in commands(block)):
            for before, after in replaced:
                command = command.replace(before, after)
                expected = [line.replace(before, after) for line in expected]
            print(f"$ {command}", flush=True)
            output, status = shell.run(command)
            if status is None:
                sys.exit(f"follow: {page}: the shell ended, or {LIMIT} s have passed: {command}")
            if status:
                sys.exit(f"follow: {page}: exit status {status}: {command}")
            if (missing := lacks(output, expected)) is not None:
                sys.exit(f"follow: {page}: it does not say {missing!r}: {command}")
            count += 1
    finally:
        shell.end()
    print(f"followed {count} commands")


if __name__ == "__main__":
    main(sys.argv[1:])
