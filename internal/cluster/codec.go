package cluster

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
)

// NewerError says that a record was written by a newer version, in a way that this one does not know. It is neither
// read nor overwritten.
type NewerError struct {
	Key    string
	Schema int
}

func (e *NewerError) Error() string {
	return fmt.Sprintf("record %s was written by a newer fairway (schema %d, this one knows %d): upgrade this node", e.Key, e.Schema, Schema)
}

// Encode writes a record as JSON with its schema. V is one of the record types, none of which has a field "schema".
func Encode[V any](v V) ([]byte, error) {
	body, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode %T: %w", v, err)
	}
	head := `{"schema":` + strconv.Itoa(Schema)
	if rest := bytes.TrimPrefix(body, []byte("{")); len(rest) > 1 {
		return append([]byte(head+","), rest...), nil
	}
	return []byte(head + "}"), nil
}

// Decode reads a record. The error is a *NewerError for one of a newer schema.
func Decode[V any](key string, text []byte) (V, error) {
	var v V
	var head struct {
		Schema int `json:"schema"`
	}
	err := json.Unmarshal(text, &head)
	switch {
	case err != nil:
		return v, fmt.Errorf("read record %s: %w", key, err)
	case head.Schema > Schema:
		return v, &NewerError{Key: key, Schema: head.Schema}
	case head.Schema < 1:
		return v, fmt.Errorf("read record %s: it has no schema, so it is not one of ours", key)
	}
	if err := json.Unmarshal(text, &v); err != nil {
		return v, fmt.Errorf("read record %s: %w", key, err)
	}
	return v, nil
}
