"""A server that speaks OpenAI's chat completions: many questions, each asked once, at the pace and the price that was set.

`address` says where it is and signs; `limits` has pace and budget; `client` asks one question, again where that may help;
`store` remembers answers; `asking` asks all.
"""
