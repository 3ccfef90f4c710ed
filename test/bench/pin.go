package main

import (
	"fmt"
	"runtime"
	"strconv"
	"syscall"
	"unsafe"
)

// pin keeps the calling goroutine on one core for good.
func pin(core string) error {
	n, err := strconv.Atoi(core)
	var mask [16]uint64 // 1024 cores, as the C library has it
	if err != nil || n < 0 || n >= 64*len(mask) {
		return fmt.Errorf("core %q: want a number from 0 to %d", core, 64*len(mask)-1)
	}
	mask[n/64] |= 1 << (n % 64)
	runtime.LockOSThread()
	_, _, errno := syscall.RawSyscall(syscall.SYS_SCHED_SETAFFINITY, 0, unsafe.Sizeof(mask), uintptr(unsafe.Pointer(&mask)))
	if errno != 0 {
		return fmt.Errorf("stay on core %d: %w", n, errno)
	}
	return nil
}
