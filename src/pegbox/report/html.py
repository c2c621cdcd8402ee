def report(run): return "<html></html>"
def card(run): return "card"
