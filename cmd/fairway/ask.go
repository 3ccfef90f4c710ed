package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// nobodyThere says that the input is a file or a pipe.
func nobodyThere(in io.Reader) bool {
	f, ok := in.(*os.File)
	return ok && !isTerminal(f)
}

// sure asks a person for a "yes". Where nobody is there to ask it is a mistake of the command line, which hint mends;
// another answer than yes is the error no.
func sure(in io.Reader, out io.Writer, question, hint, no string) error {
	if nobodyThere(in) {
		return usagef("nobody is there to ask: give %s", hint)
	}
	if _, err := fmt.Fprintf(out, "%s Type yes: ", question); err != nil {
		return err
	}
	answer, err := bufio.NewReader(in).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read answer: %w", err)
	}
	if strings.TrimSpace(answer) != "yes" {
		return errors.New(no)
	}
	return nil
}
