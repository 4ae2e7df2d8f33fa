package main

// extensions gives the rule language the actions that other packages provide.
func (a *app) extensions(r *queueRun) {}
