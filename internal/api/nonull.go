package api

import "reflect"

// noNulls returns a copy of a value in which lists and maps that are nil are empty instead, at any depth, so that no
// program has to expect null where the type says list. The lists of v itself are not written to.
func noNulls(v any) any {
	out := reflect.New(reflect.TypeOf(v)).Elem()
	out.Set(reflect.ValueOf(v))
	fill(out)
	return out.Interface()
}

func fill(v reflect.Value) {
	switch v.Kind() {
	case reflect.Slice:
		all := reflect.MakeSlice(v.Type(), v.Len(), v.Len())
		reflect.Copy(all, v)
		v.Set(all)
		for i := range v.Len() {
			fill(v.Index(i))
		}
	case reflect.Map:
		if v.IsNil() {
			v.Set(reflect.MakeMap(v.Type()))
		}
	case reflect.Pointer:
		if v.IsNil() {
			return
		}
		to := reflect.New(v.Type().Elem())
		to.Elem().Set(v.Elem())
		fill(to.Elem())
		v.Set(to)
	case reflect.Struct:
		for _, f := range v.Fields() {
			if f.CanSet() { // what a type hides is its own business (netip.Addr, time.Time)
				fill(f)
			}
		}
	default: // the others hold no lists
	}
}
