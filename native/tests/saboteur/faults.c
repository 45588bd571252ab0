/* Prints every fault of the saboteur, a line each: name, expected verdict, pattern for --filter, further options, and what is
 * wrong, between semicolons. */
#include "faults.h"

#include <stdio.h>

int main(void) {
#define PRINT(id, name, verdict, cases, options, wrong) puts(name ";" verdict ";" cases ";" options ";" wrong);
  SABOTEUR_FAULTS(PRINT)
  return 0;
}
