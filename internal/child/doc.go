// Package child runs other programs, with nothing of what its own program may do.
//
// A Launcher is a process of its own, made while the program still has its privileges and
// without them from its first instruction on: it is another user (as root), gains no
// privileges by what it executes (no_new_privs), and its bounding and ambient sets of
// capabilities are empty. It starts what it is told to, so that the program can give up
// its own privileges and still have programs started. A program that a root process
// starts after it has only dropped its capabilities would have all of them again.
//
// What it starts has the descriptors 0 to 2, an environment without what was meant for
// the program alone, and a process group of its own. When the program ends, however it
// ends, the launcher ends what it has started: SIGTERM, and SIGKILL after Grace.
package child
