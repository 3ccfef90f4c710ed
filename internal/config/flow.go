package config

import (
	"unicode/utf8"

	"github.com/goccy/go-yaml/token"
)

// joinFlowScalars puts together again what the scanner cuts at colons: of an unquoted fd00::/64 in a list in brackets
// inside braces it makes a mapping, though a colon without white space behind it is a part of the text there
// (YAML 1.2, 7.3.3). IPv6 addresses are most of what is written in such lists.
func joinFlowScalars(tokens token.Tokens) token.Tokens {
	var out token.Tokens
	var open []token.Type
	for i := 0; i < len(tokens); i++ {
		tk := tokens[i]
		switch tk.Type {
		case token.SequenceStartType, token.MappingStartType:
			open = append(open, tk.Type)
		case token.SequenceEndType, token.MappingEndType:
			open = open[:max(len(open)-1, 0)]
		case token.MappingValueType:
			inList := len(open) > 0 && open[len(open)-1] == token.SequenceStartType
			if !inList || i+1 == len(tokens) || !isPlain(tokens[i+1]) || !touches(tk, tokens[i+1]) {
				break
			}
			value, origin, pos := tk.Value+tokens[i+1].Value, tk.Origin+tokens[i+1].Origin, tk.Position
			if last := len(out) - 1; last >= 0 && isPlain(out[last]) && touches(out[last], tk) {
				value, origin, pos = out[last].Value+value, out[last].Origin+origin, out[last].Position
				out = out[:last]
			}
			tk = token.New(value, origin, pos)
			i++
		default:
		}
		out.Add(tk)
	}
	return out
}

// isPlain is true for scalars without quotes.
func isPlain(tk *token.Token) bool {
	return tk.Indicator == token.NotIndicator && tk.CharacterType == token.CharacterTypeMiscellaneous
}

// touches is true if b begins where a ends.
func touches(a, b *token.Token) bool {
	return a.Position.Line == b.Position.Line &&
		a.Position.Column+utf8.RuneCountInString(a.Value) == b.Position.Column
}
