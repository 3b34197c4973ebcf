package wallet

// Slide tells how a list differs from what it was when somebody, who keeps a copy of
// it in some form, last set its Slide to all that the list had: Dropped of those
// values have left at the front, and the next Same of them are the first that there
// are now. What follows is new, or changed. It is no part of a row's state.
type Slide struct{ Dropped, Same int }

// drop is told that n values left at the front; below 1, none did.
func (s *Slide) drop(n int) {
	if n = min(n, s.Same); n > 0 {
		s.Dropped, s.Same = s.Dropped+n, s.Same-n
	}
}

// change is told that the value at index i, or where it was, is another now, and what
// follows too.
func (s *Slide) change(i int) { s.Same = min(s.Same, i) }

// Written sets the Slide of the window to all the cells that it has.
func (c *Counter) Written() { c.Window.cells = Slide{Same: len(c.Window.Cells)} }
