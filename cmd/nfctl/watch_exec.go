package main

import (
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"nfctl/internal/child"
	"nfctl/internal/ct"
	"nfctl/internal/format"
	"nfctl/internal/say"
	"nfctl/internal/value"
)

// execFlags are the flags of a watch by which it has a program run for each event.
type execFlags struct {
	program  string
	user     string
	parallel int
	timeout  time.Duration
}

// execRoom is how many events may wait for a program.
const execRoom = 1024

func (o *execFlags) register(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&o.program, "exec", "", "run `program` with its arguments for each event that is shown: the event "+
		"in JSON is its\nstandard input. There is no shell. It has no privileges, and as root is nobody")
	o.parallel = 1
	varFlag(f, &o.parallel, "parallel", "programs", "1", func(s string) (int, error) {
		n, err := value.NumberIn("number of programs", s, 1, 1024)
		return int(n), err
	}, fmt.Sprintf("programs of --exec at the same time; %d events may wait, more are dropped and counted", execRoom))
	o.timeout = 10 * time.Second
	varFlag(f, &o.timeout, "exec-timeout", "duration", "10s", someTime,
		"longest time for a program of --exec: then SIGTERM, and SIGKILL 2s later")
	f.StringVar(&o.user, "exec-user", "", "`user` as whom programs of --exec run (default nobody, for root)")
}

// A watchExec hands a watch's events to a program. nil: to none.
type watchExec struct {
	a        *app
	o        *execFlags
	launcher *child.Launcher
	pool     *child.Pool
	b        []byte
	often    say.Often
}

// check reads the flags.
func (o *execFlags) check(c *cobra.Command) (args []string, err error) {
	if !c.Flags().Changed("exec") {
		for _, name := range []string{"parallel", "exec-timeout", "exec-user"} {
			if c.Flags().Changed(name) {
				return nil, usagef("--%s goes with --exec", name)
			}
		}
		return nil, nil
	}
	if args, err = child.Split(o.program); err != nil {
		return nil, usagef("--exec %q: %w", o.program, err)
	}
	if err := child.Look(args[0]); err != nil {
		return nil, usagef("--exec: %w", err)
	}
	return args, nil
}

// startExec makes what runs programs, while there are privileges to give up.
func (w *watchRun) startExec() error {
	args, err := w.o.exec.check(w.a.running)
	if err != nil || args == nil {
		return err
	}
	x := &watchExec{a: w.a, o: &w.o.exec}
	if x.launcher, err = child.Start(w.o.exec.user); err != nil {
		return fmt.Errorf("--exec: %w", err)
	}
	stdout, _ := w.a.out.(*os.File)
	if x.pool, err = x.launcher.Pool(child.PoolOptions{Args: args, Parallel: w.o.exec.parallel,
		Timeout: w.o.exec.timeout, Room: execRoom, Stdout: stdout, Failed: x.failed,
		Stderr: func(line string) { w.a.warn("%s: %s", args[0], line) }}); err != nil {
		x.launcher.Close()
		return fmt.Errorf("--exec: %w", err)
	}
	w.exec = x
	return nil
}

// failed tells of a program that failed, once a second at most. Several goroutines call
// it.
func (x *watchExec) failed(err error) {
	if left, ok := x.often.Ask(time.Now()); ok {
		x.a.warn("--exec: %v%s", err, say.Others(left))
	}
}

// patience is how much longer a watch may take to end for the programs that run.
func (x *watchExec) patience() time.Duration {
	if x == nil {
		return 0
	}
	return x.o.timeout + child.Grace + time.Second
}

// close waits for the programs, and ends what runs them; now says that events that wait
// are left out.
func (x *watchExec) close(now bool) {
	if x == nil {
		return
	}
	x.pool.Close(now)
	x.launcher.Close()
}

// appendTotals appends what became of the programs.
func (x *watchExec) appendTotals(b []byte) []byte {
	if x == nil {
		return b
	}
	s := x.pool.Stats()
	b = fmt.Appendf(b, "nfctl: --exec: %s run", plural(s.Ran, "program"))
	if s.Failed > 0 {
		b = fmt.Appendf(b, ", %d failed", s.Failed)
	}
	if s.Late > 0 {
		b = fmt.Appendf(b, " (%d of them ended by --exec-timeout)", s.Late)
	}
	if s.Left > 0 {
		b = fmt.Appendf(b, "; %s for which none was run, see --parallel", plural(s.Left, "event"))
	}
	return append(b, '\n')
}

// handing returns what hands objects of one kind to the program.
func handing[T any](w *watchRun) func(*T) {
	x := w.exec
	if x == nil {
		return func(*T) {}
	}
	add := jsonOf[T]()
	return func(t *T) {
		x.b = add(x.b[:0], t)
		x.pool.Add(x.b)
	}
}

// jsonOf returns what writes objects of one kind as events in JSON.
func jsonOf[T any]() func([]byte, *T) []byte {
	out, opt := format.Output{Format: format.JSON}, format.Options{Stream: true}
	switch any((*T)(nil)).(type) {
	case *ct.Flow:
		if p, err := format.New(format.Flows, out, opt); err == nil {
			return any(p.Append).(func([]byte, *T) []byte)
		}
	case *ct.Expect:
		if p, err := format.New(format.Expects, out, opt); err == nil {
			return any(p.Append).(func([]byte, *T) []byte)
		}
	}
	return func(b []byte, _ *T) []byte { return b }
}
