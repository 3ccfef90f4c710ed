package e2e_test

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// Containers come and go while the router is killed and started again: none is left with a wrong way.
func TestRouterChurn(t *testing.T) {
	s := newRouterSite(t)
	h := s.hosts[0]
	h.otherNetwork("blue", "-o", "fairway.router=true", "--subnet", "10.69.1.0/24")
	h.otherNetwork("green", "-o", "fairway.router=true", "--subnet", "10.69.2.0/24")
	h.router()
	h.routerOn("blue", "green")
	const n = 100
	stop := make(chan struct{})
	killed := make(chan int)
	go func() {
		count := 0
		tick := time.NewTicker(2 * time.Second)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				killed <- count
				return
			case <-tick.C:
			}
			_, err := h.try("docker", "kill", routerName)
			_, again := h.try("docker", "start", routerName)
			if err == nil && again == nil {
				count++
			}
		}
	}()
	errs := atOnce(n, 6, func(i int) error {
		name, network := fmt.Sprintf("k%d", i), []string{"blue", "green"}[i%2]
		if _, err := h.tryRun(name, "--network", network); err != nil {
			return err
		}
		if i%2 == 0 && i < n-20 {
			_, err := h.try("docker", "rm", "-f", name)
			return err
		}
		return nil
	})
	close(stop)
	t.Logf("measured: router killed and started %d times while %d containers came, %d of which went", <-killed, n, (n-20)/2)
	for i, err := range errs {
		t.Errorf("container %d: %v", i, err)
	}
	h.routerOn("blue", "green")
	st, err := h.routerStatus()
	if err != nil {
		t.Fatal(err)
	}
	at := map[string]string{}
	for _, net := range st.Networks {
		at[net.Name] = net.Addresses[0].String()
	}
	left := strings.Fields(h.docker("ps", "--format", "{{.Names}}", "--filter", "name=^k"))
	took := eventually(t, 60*time.Second, func() error {
		for _, name := range left {
			var i int
			if _, err := fmt.Sscanf(name, "k%d", &i); err != nil {
				return err
			}
			c, err := h.inspect(name)
			if err != nil {
				return err
			}
			// As the container's own packets: the way to another network's address.
			out, err := c.net("ip", "route", "get", "192.0.2.1")
			if err := within(name, contains(out, err, []string{"via " + at[[]string{"blue", "green"}[i%2]] + " dev"})); err != nil {
				return err
			}
		}
		return nil
	})
	t.Logf("measured: %d containers are led the right way %v after the last kill", len(left), took.Round(time.Millisecond))
}
