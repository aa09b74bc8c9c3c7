"""Policies propose settings; the policy document says what the operator wants.

A policy sees one pool at one tick and answers with proposals; it moves nothing. What
it may move, how far and how often is the guard's business, in the controller.
"""
