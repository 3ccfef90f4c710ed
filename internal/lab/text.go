package lab

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"
)

// width is how many columns every text of the lab keeps to.
const width = 80

// Printer shows events as they come. On a terminal, steps that are under way share one line, which moves; elsewhere
// every step is a line. It is safe for concurrent use.
type Printer struct {
	w        io.Writer
	terminal bool
	start    time.Time

	mu      sync.Mutex
	current map[string]string // subject to step, while it is not done
	frame   int
	quit    chan struct{}
	done    chan struct{}
}

// NewPrinter starts a printer; Close ends it.
func NewPrinter(w io.Writer, terminal bool) *Printer {
	p := &Printer{
		w: w, terminal: terminal, start: time.Now(), current: map[string]string{},
		quit: make(chan struct{}), done: make(chan struct{}),
	}
	go p.spin()
	return p
}

// Show takes an event.
func (p *Printer) Show(e Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.current[e.Subject] = e.Step
	if e.Done {
		delete(p.current, e.Subject)
	}
	if e.Done || !p.terminal {
		p.line("%s: %s", e.Subject, e.Step)
	}
}

// Close clears the moving line.
func (p *Printer) Close() {
	close(p.quit)
	<-p.done
}

// line prints a line that stays. The caller holds the lock.
func (p *Printer) line(format string, args ...any) {
	if p.terminal {
		format = "\r\x1b[K" + format
	}
	_, _ = fmt.Fprintf(p.w, format+"\n", args...) // progress is an aid; its loss stops nothing
}

func (p *Printer) spin() {
	defer close(p.done)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-p.quit:
			p.paint(true)
			return
		case <-tick.C:
			p.paint(false)
		}
	}
}

func (p *Printer) paint(last bool) {
	if !p.terminal {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	text := ""
	if !last && len(p.current) > 0 {
		var parts []string
		for _, subject := range slices.Sorted(maps.Keys(p.current)) {
			parts = append(parts, subject+": "+p.current[subject])
		}
		p.frame++
		text = fmt.Sprintf("%c %.1fs  %s", `|/-\`[p.frame%4], time.Since(p.start).Seconds(), strings.Join(parts, ", "))
		text = text[:min(len(text), width-1)]
	}
	_, _ = fmt.Fprint(p.w, "\r\x1b[K", text)
}

// Write prints the status for people.
func (s Status) Write(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "lab in %s, %s, up for %s\n\n", s.Dir, s.Topology, time.Since(s.Since).Round(time.Second))
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0) // its errors are those of b, which takes everything
	_, _ = fmt.Fprintln(t, "HOST\tADDRESS\tLINK\tENGINE\tROOTFS\tAGENT\tCONTAINERS")
	for _, h := range s.Hosts {
		var links []string
		for _, nic := range h.NICs {
			links = append(links, orDash(h.Links[nic.Name]))
		}
		containers := "-"
		if !h.Router() {
			containers = fmt.Sprint(h.Containers)
		}
		_, _ = fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", h.Name, h.Address(), strings.Join(links, ","),
			orDash(h.Engine), orDash(shorten(h.Rootfs, 14)), h.Agent, containers)
	}
	if err := t.Flush(); err != nil {
		return fmt.Errorf("write status: %w", err)
	}
	if s.Store != nil {
		fmt.Fprintf(&b, "\n%s", s.Store.Text()+"\n")
	}
	for _, trouble := range s.Trouble {
		fmt.Fprintf(&b, "\n%s: %s", storeName, trouble)
	}
	for _, h := range s.Hosts {
		for _, trouble := range h.Trouble {
			fmt.Fprintf(&b, "\n%s: %s", h.Name, trouble)
		}
	}
	if !s.OK {
		b.WriteString("\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// Text is one line about the store.
func (s StoreStatus) Text() string {
	text := fmt.Sprintf("%s: %s at %s, %s", storeName, s.Kind, strings.Join(s.Endpoints, ", "), s.State)
	if len(s.Cut) != 0 {
		text += ", cut off from " + strings.Join(s.Cut, ", ")
	}
	return text
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// shorten keeps the end of a long text, which tells paths apart.
func shorten(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return ".." + s[len(s)-n+2:]
}
