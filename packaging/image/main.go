// Command image packs the binary into a container image for `docker load`; see package image.
package main

import (
	"flag"
	"fmt"
	"os"
	"runtime"

	"fairway/internal/image"
)

func main() {
	out := flag.String("o", "fairway-image.tar", "archive to write")
	name := flag.String("t", "fairway:latest", "name and tag of the image")
	arch := flag.String("arch", runtime.GOARCH, "architecture of the binary, as Go names it")
	flag.Parse()
	if flag.NArg() != 1 {
		fmt.Fprintln(os.Stderr, "usage: image [-o ARCHIVE] [-t NAME:TAG] [-arch ARCH] BINARY")
		os.Exit(2) //nolint:forbidigo // this is main
	}
	if err := image.Write(*out, *name, *arch, flag.Arg(0)); err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1) //nolint:forbidigo // this is main
	}
}
