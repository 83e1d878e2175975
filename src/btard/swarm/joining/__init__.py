"""How strangers become members: the line of seals, the state, tickets, probation; and what members do about it."""
