package lua

import (
	"io"
	"sync"
	"time"

	"nfctl/internal/rule"
	"nfctl/internal/say"
)

// Rules opens the files of the action 'lua FILE' of rules. A file that fails on
// packets is told of once a second at most.
type Rules struct {
	Timeout time.Duration     // see RuleOptions
	Out     io.Writer         // what scripts print
	Warn    func(text string) // is told why one failed

	mu    sync.Mutex
	files []*RuleFile
	often say.Often
}

// Open reads a file: see rule.Options.Lua.
func (l *Rules) Open(file string) (rule.Opener, error) {
	f, err := OpenRule(file, RuleOptions{Timeout: l.Timeout, Out: l.Out, Warn: l.complain})
	if err != nil {
		return rule.Opener{}, err
	}
	l.mu.Lock()
	l.files = append(l.files, f)
	l.mu.Unlock()
	return rule.Opener{
		Open: func() (rule.Extension, error) {
			x, err := f.Open()
			if err != nil {
				return nil, err
			}
			return x, nil
		},
		Needs: rule.NeedsToJudge(f.Fields()...).Add(rule.Needs{Edits: true}),
	}, nil
}

func (l *Rules) complain(text string) {
	if left, ok := l.often.Ask(time.Now()); ok && l.Warn != nil {
		l.Warn(text + say.Others(left))
	}
}

// Failures returns on how many packets scripts failed, and of how many they were
// cut off, since the beginning.
func (l *Rules) Failures() (failed, cut uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, f := range l.files {
		a, b := f.Errors()
		failed, cut = failed+a, cut+b
	}
	return failed, cut
}
