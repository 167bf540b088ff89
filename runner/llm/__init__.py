"""Language models: the endpoint, deadlines, checked answers, fall-backs, cost, prompts. Knows no
search."""
