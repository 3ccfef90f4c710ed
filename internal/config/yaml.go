package config

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// The parser's time grows with the square of the nesting, and its stack with the nesting.
const (
	maxLine     = 16 << 10 // bytes
	maxBrackets = 1000     // open at the same time
)

// readFile puts what the file gives into the config.
func (l *loader) readFile(data []byte) {
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	file, err := l.parseYAML(data)
	if err != nil {
		pos := position{name: l.file}
		reason := err.Error()
		if syntax := (*yaml.SyntaxError)(nil); errors.As(err, &syntax) {
			pos, reason = l.at(syntax.Token), syntax.Message
		}
		l.failAt(pos, "", "", "is not YAML: %s", reason)
		return
	}
	seen := false
	for _, doc := range file.Docs {
		if doc.Body == nil || doc.Body.Type() == ast.CommentType || doc.Body.Type() == ast.NullType {
			continue
		}
		if seen {
			l.failAt(l.at(doc.Body.GetToken()), "", "", "want one YAML document; this is another one")
			return
		}
		seen = true
		l.readObject("", l.root, doc.Body)
	}
}

func (l *loader) parseYAML(data []byte) (file *ast.File, err error) {
	if !utf8.Valid(data) {
		return nil, errors.New("want UTF-8")
	}
	if err := checkNesting(data); err != nil {
		return nil, err
	}
	// The parser is not ours, and a file must not be able to stop the agent.
	defer func() {
		if r := recover(); r != nil {
			file, err = nil, fmt.Errorf("the parser gave up: %v", r)
		}
	}()
	// Duplicate keys are found here, so that all of them are reported, with their paths.
	return parser.Parse(joinFlowScalars(lexer.Tokenize(string(data))), 0, parser.AllowDuplicateMapKey())
}

func checkNesting(data []byte) error {
	for line := range bytes.Lines(data) {
		if len(line) > maxLine {
			return fmt.Errorf("want lines of at most %d bytes", maxLine)
		}
	}
	open := 0
	for _, c := range data {
		switch c {
		case '[', '{':
			open++
		case ']', '}':
			open = max(open-1, 0)
		}
		if open > maxBrackets {
			return fmt.Errorf("want at most %d brackets open at the same time", maxBrackets)
		}
	}
	return nil
}

func (l *loader) at(t *token.Token) position {
	pos := position{name: l.file}
	if t != nil && t.Position != nil {
		pos.line, pos.col = t.Position.Line, t.Position.Column
	}
	return pos
}

// readObject reads a mapping. One without any key, as when all are commented out, is fine.
func (l *loader) readObject(path string, fields []field, n ast.Node) {
	m, ok := n.(*ast.MappingNode)
	if !ok {
		if n.Type() != ast.NullType {
			l.wrongType(path, n, "a mapping with the keys "+strings.Join(names(fields), ", "))
		}
		return
	}
	seen := map[string]position{}
	for _, entry := range m.Values {
		name := entry.Key.GetToken().Value
		key := join(path, name)
		pos := l.at(entry.Key.GetToken())
		f := find(fields, name)
		if f == nil || entry.Key.IsMergeKey() {
			l.failAt(pos, key, "", "is not a key%s", l.hint(path, name, fields))
			continue
		}
		if first, ok := seen[name]; ok {
			l.failAt(pos, key, "", "is given twice; the first one is in line %d", first.line)
			continue
		}
		seen[name] = pos
		l.given[key] = pos
		if entry.Value == nil {
			l.failAt(pos, key, "", "has no value")
			continue
		}
		l.readField(key, f, entry.Value)
	}
}

func (l *loader) readField(key string, f *field, n ast.Node) {
	switch f.kind {
	case kindObject:
		l.readObject(key, f.fields, n)
	case kindObjects:
		l.readObjects(key, f, n)
	case kindTexts:
		l.readTexts(key, f, n)
	default:
		l.readScalar(key, f, n)
	}
}

// readObjects reads a list of mappings. A list that is written, even an empty one, takes the place of the default.
func (l *loader) readObjects(key string, f *field, n ast.Node) {
	if n.Type() == ast.NullType {
		return
	}
	seq, ok := n.(*ast.SequenceNode)
	if !ok {
		l.wrongType(key, n, "a list of mappings")
		return
	}
	f.clear()
	for i, member := range seq.Values {
		path, fields := fmt.Sprintf("%s[%d]", key, i), f.add()
		l.given[path] = l.at(start(member))
		if member.Type() == ast.NullType {
			l.wrongType(path, member, "a mapping")
			continue
		}
		l.readObject(path, fields, member)
	}
}

// start is the first token of a node. That of a mapping in block style would be its first colon.
func start(n ast.Node) *token.Token {
	if m, ok := n.(*ast.MappingNode); ok && !m.IsFlowStyle && len(m.Values) > 0 {
		return m.Values[0].Key.GetToken()
	}
	return n.GetToken()
}

func (l *loader) readTexts(key string, f *field, n ast.Node) {
	if n.Type() == ast.NullType {
		return
	}
	seq, ok := n.(*ast.SequenceNode)
	if !ok {
		l.wrongType(key, n, "a list of strings")
		return
	}
	f.clear()
	for i, member := range seq.Values {
		l.readScalar(fmt.Sprintf("%s[%d]", key, i), f, member)
	}
}

func (l *loader) readScalar(key string, f *field, n ast.Node) {
	want := kindText
	if f.isScalar() {
		want = f.kind
	}
	got := kindText
	switch n.(type) {
	case *ast.StringNode:
	case *ast.IntegerNode:
		got = kindNumber
	case *ast.BoolNode:
		got = kindBool
	default:
		l.wrongType(key, n, f.want)
		return
	}
	if got != want {
		l.wrongType(key, n, f.want)
		return
	}
	l.set(l.at(n.GetToken()), key, f, n.GetToken().Value)
}

// wrongType says what was wanted instead of a node, and what the node is.
func (l *loader) wrongType(key string, n ast.Node, want string) {
	var value, is string
	pos := l.at(start(n))
	switch n := n.(type) {
	case *ast.StringNode:
		value, is = quote(kindText, n.Value), "a string"
	case *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		value, is = quote(kindNumber, n.GetToken().Value), "a number"
	case *ast.BoolNode:
		value, is = n.GetToken().Value, "true or false"
	case *ast.NullNode:
		is, pos = "empty", l.nearest(key) // it has no place of its own
	case *ast.SequenceNode:
		is = "a list"
	case *ast.MappingNode:
		is = "a mapping"
	case *ast.LiteralNode:
		is = "a block of text"
	default:
		is = "an anchor, an alias or a tag, which are not read here"
	}
	l.failAt(pos, key, value, "want %s; this is %s", want, is)
}

// hint says which key an unknown one was probably meant to be, or which ones there are.
func (l *loader) hint(path, name string, fields []field) string {
	if s := suggest(name, names(fields)); s != "" {
		return s
	}
	for _, lf := range leaves("", l.root) {
		if strings.EqualFold(lf.name, name) {
			return fmt.Sprintf(" of this place; did you mean %q?", lf.key)
		}
	}
	if path == "" {
		path = "the file"
	}
	return fmt.Sprintf("; those of %s are %s", path, strings.Join(names(fields), ", "))
}

func find(fields []field, name string) *field {
	for i := range fields {
		if fields[i].name == name {
			return &fields[i]
		}
	}
	return nil
}

func names(fields []field) []string {
	all := make([]string, len(fields))
	for i, f := range fields {
		all[i] = f.name
	}
	return all
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}
