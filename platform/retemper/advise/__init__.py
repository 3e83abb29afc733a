"""Advice before compute is spent: `facts` of the data, `evidence` of finished studies, `recommend` from both."""
