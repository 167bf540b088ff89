"""No mechanism at all."""

def propose(view, count):
    return view.ask(count=count)
