"""Only words: tells the prior what was tried, what failed and where the gains came from."""

from textwrap import shorten

from sandbox.mechanism import Candidate, Mechanism, View


class GuidanceOnly(Mechanism):
    name = "guidance_only"

    def propose(self, view: View, count: int) -> list[Candidate]:
        failed = [f"{n}={v}" for t in view.trace[-12:] if t.failure for n, v in t.changes.items()]
        gained = [n for t in view.trace if t.status == "kept" for n in t.changes]
        lines = ["Do not repeat a configuration of the trace."]
        if failed:
            lines.append("These failed: " + ", ".join(dict.fromkeys(failed)) + ".")
        if gained:
            lines.append("Gains came from " + ", ".join(sorted(set(gained))) + ".")
        lines.append(
            f"The metric is to be {'lower' if view.minimize else 'higher'}; best so far {view.best.metric}."
        )
        return view.ask(shorten(" ".join(lines), 1500), count)
